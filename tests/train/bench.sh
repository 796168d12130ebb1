#!/bin/bash
# bench train: sane numbers on one rank and several, at every stage and in 16 bits; the profile's families and what
# is left add up to its step; nothing is written.
. "${srcdir:-.}/tests/train/lib.sh"
command -v mpirun >/dev/null || { echo "SKIP: mpirun is missing"; exit 77; }
tiny_model "$work/model"
cd "$work" || exit 1

# number PATH: a value of out.json, as in .step_ms.median; arrays and nested objects by name
number() {
    awk -v path="$1" 'BEGIN { n = split(path, want, "."); at = 2 }
        index($0, "\"" want[at] "\":") { if (at == n) { sub(/.*: */, ""); sub(/[,}].*/, ""); print; exit } at++ }' out.json
}

# true_of EXPRESSION: in awk
true_of() {
    awk "BEGIN { exit !($1) }" || fail "$name: expected $1"
}

# bench NAME RANKS FLAG...
bench() {
    name=$1
    local n=$2 flag
    shift 2
    ranks "$n" "$mpizero" bench train --device cpu --cpu-threads 1 --model model --block-size 64 --steps 4 --warmup 1 \
        --per-device-train-batch-size 2 --json "$@" >out.json 2>err || { fail "$name ended with $?: $(cat err)"; return; }
    for flag in .tokens_per_second.median .tokens_per_second.min .step_ms.median .flops_per_token .peak_flops_measured \
        .memory_bytes .profile.step_ms; do
        true_of "$(number $flag)0 > 0"
    done
    true_of "$(number .ranks) == $n"
    true_of "$(number .loss) > 4 && $(number .loss) < 7"
    true_of "$(number .tokens_per_second.min) <= $(number .tokens_per_second.median)"
    true_of "$(number .mfu_measured) > 0 && $(number .mfu_measured) < 1.5"
    true_of "$(number .exposed_communication_ms) >= 0"
    local families
    families=$(awk '/"families"/ { on = 1 } /"rest_ms"/ { on = 0 } on && /"ms":/ { gsub(/[^0-9.e-]/, ""); s += $0 }
        END { print s }' out.json)
    # On several ranks of few processors the hosts wait for each other, which is no family's time.
    local step rest least=0.1
    step=$(number .profile.step_ms) rest=$(number .profile.rest_ms)
    [ "$n" = 1 ] || least=0
    true_of "$families > $least * $step && $families < 1.02 * $step"
    true_of "$families + $rest < 1.001 * $step && $families + $rest > 0.999 * $step"
    for flag in matmul attention norm loss optimiser; do
        grep -A2 "\"$flag\"" out.json | grep -q '"launches": [1-9]' || fail "$name: no launches of $flag"
    done
    [ "$(grep -c forward_ms out.json)" = 5 ] || fail "$name: expected 5 units"
}

bench one 1
bench "one, bf16, accumulating" 1 --mixed-precision bf16 --gradient-accumulation-steps 2
bench "one, recomputing" 1 --gradient-checkpointing
for stage in 0 1 2 3; do
    bench "two, stage $stage" 2 --zero-stage $stage
done
# 6 N + 12 L H Q T: N of the tiny model, 3 layers, 36 wide, 64 tokens
true_of "$(number .flops_per_token) == 6 * $(number .parameters) + 12 * 3 * 36 * 64"

"$mpizero" bench train --device cpu --model model --steps 2 --warmup 0 --per-device-train-batch-size 1 >text 2>&1 || fail "as text"
for word in tokens/s MFU matmul optimiser transformer.h.2 lm_head; do
    grep -q "$word" text || fail "the text does not tell $word"
done
"$mpizero" bench train --device cpu --model model --block-size 65 >text 2>&1 && fail "took too long a block"
grep -q "the model has 64 positions" text || fail "too long a block: $(cat text)"
[ "$(find . -type f | sort | tr '\n' ' ')" = "./err ./model/config.json ./out.json ./text " ] || fail "left files: $(find .)"
finish
