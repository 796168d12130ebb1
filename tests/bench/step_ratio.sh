#!/usr/bin/env bash
# Training steps of mpizero and of PyTorch in turn on the same cores, and their ratio (docs/PERFORMANCE.md, CPU).
#
#     tests/bench/step_ratio.sh [char|gpt2] [fp32|bf16]
#
#   MPIZERO  the program (build/mpizero)        PYTHON   one with torch and transformers (python3)
#   ROUNDS   how often both run (3)             THREADS  of each (2)             STEPS  timed in a round (200; gpt2: 8)
#   BUILDS, MODES, OPTIMIZERS   of PyTorch, as torch_step.py has them (plain transformers; eager compile; default fused)
#
# The sides of a round follow one another at once, so its ratios stand even where the machine is faster in one round than
# in the next; of each ratio the rounds' median is given, with the least and the most.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
model=${1:-char} precision=${2:-fp32}
mpizero=${MPIZERO:-$here/../../build/mpizero} python=${PYTHON:-python3} threads=${THREADS:-2}
work=$(mktemp -d "${TMPDIR:-/tmp}/step-ratio.XXXXXX")
trap 'rm -rf "$work"' EXIT

case $model in
char) steps=${STEPS:-200} skip=20 batch=12 context=64 shape='"vocab_size": 257, "n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 4' ;;
gpt2) steps=${STEPS:-8} skip=2 batch=4 context=256 shape='"vocab_size": 50257, "n_positions": 256, "n_embd": 768, "n_layer": 12, "n_head": 12' ;;
*) echo "step_ratio.sh: expected char or gpt2, found $model" >&2; exit 2 ;;
esac
mkdir "$work/model"
cat >"$work/model/config.json" <<JSON
{"model_type": "gpt2", $shape, "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0,
 "attn_pdrop": 0.0}
JSON
cat >"$work/config.json" <<JSON
{"train_batch_size": $batch, "gradient_clipping": 1.0, "bf16": {"enabled": $([ "$precision" = bf16 ] && echo true || echo false)},
 "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}
JSON
awk 'BEGIN { srand(1); for (i = 0; i < 200000; i++) printf "%c", 32 + int(rand() * 90) }' >"$work/text"

ours() {
    rm -rf "$work/run"
    "$mpizero" train --device cpu --cpu-threads "$threads" --model "$work/model" --tokenizer byte --train-data "$work/text" \
        --block-size "$context" --deepspeed "$work/config.json" --max-steps "$((steps + skip))" --save-steps 0 --no-save-weights \
        --logging-steps 1000 --output-dir "$work/run" >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; exit 1; }
    sed -n 's/.*"loss":.*"step_seconds":\([^,}]*\).*/\1/p' "$work/run/metrics.jsonl" | tail -n +"$((skip + 1))" |
        sort -g | awk '{ t[NR] = $1 } END { print t[int((NR + 1) / 2)] }'
}

theirs() {
    # shellcheck disable=SC2086 # lists of words
    "$python" "$here/torch_step.py" --model "$model" --precision "$precision" --threads "$threads" --steps "$steps" \
        --build ${BUILDS:-plain transformers} --mode ${MODES:-eager compile} --optimizer ${OPTIMIZERS:-default fused} 2>/dev/null |
        sed 's/.*"build": "\([a-z]*\)", "mode": "\([a-z]*\)", "optimizer": "\([a-z]*\)".*"step_seconds": \([0-9.]*\).*/\1-\2-\3 \4/'
}

for round in $(seq "${ROUNDS:-3}"); do
    ours | sed "s/^/$round mpizero /" | tee -a "$work/times"
    theirs | sed "s/^/$round /" | tee -a "$work/times"
done
awk '$2 == "mpizero" { mine[$1] = $3 } $2 != "mpizero" { print $2, $3 / mine[$1], mine[$1], $3 }' "$work/times" |
    sort -k 1,1 -k 2,2g | awk -v model="$model" -v precision="$precision" '
    function tell() {
        i = int((n + 1) / 2)
        printf "%s %s: PyTorch %s takes %.2f times as long (%.2f to %.2f): %.4f s, mpizero %.4f s\n", model, precision, who,
               ratio[i], ratio[1], ratio[n], theirs[i], mine[i]
    }
    $1 != who { if (n) tell(); who = $1; n = 0 }
    { ratio[++n] = $2; mine[n] = $3; theirs[n] = $4 }
    END { if (n) tell() }'
