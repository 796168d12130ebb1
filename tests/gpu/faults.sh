# What has to go wrong in the right way. Sourced by tests/gpu/run, whose variables and functions it uses.
# shellcheck shell=bash

# overflows N: fp16 steps in which the last of N ranks overflows.
overflows() {
    on_ranks "$1" tests/train/overflow.np2 cuda >"$work/overflow-$1.log" 2>&1 ||
        { tail -n 8 "$work/overflow-$1.log"; return 1; }
    grep '^stages' "$work/overflow-$1.log"
}

# large_step NAME RANKS BATCH: two steps of a GPT-2 of 350M parameters on BATCH samples of 1024 tokens per rank.
large_step() {
    local name=$1 ranks=$2 batch=$3
    [ -f "$work/large-text-$ranks" ] || tiny_text "$work/large-text-$ranks" $((ranks * 1100000))
    mkdir -p "$work/large"
    cat >"$work/large/config.json" <<JSON
{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50257, "n_positions": 1024, "n_embd": 1024,
 "n_layer": 24, "n_head": 16, "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0,
 "attn_pdrop": 0.0, "bos_token_id": 50256, "eos_token_id": 50256}
JSON
    on_ranks "$ranks" "$mpizero" train --device cuda --model "$work/large" --tokenizer byte \
        --train-data "$work/large-text-$ranks" --block-size 1024 --mixed-precision bf16 \
        --per-device-train-batch-size "$batch" --max-steps 2 --no-save-weights --save-steps 0 \
        --output-dir "$work/$name" >"$work/$name.log" 2>&1 &
    local job=$! rows=0
    while kill -0 $job 2>/dev/null && [ "$rows" -lt 2 ]; do
        sleep 0.2
        rows=$(grep -c . "$work/$name/metrics.jsonl" 2>/dev/null)
        rows=${rows:-0}
    done
    [ "$rows" -lt 2 ] || pgrep -f "^$mpizero train .*$work/$name$" | xargs -r kill -9 2>/dev/null
    wait $job && return 0
    [ "$rows" = 2 ]
}

# does_not_fit N: 1024 samples on each of N GPUs are refused before the first step by one message with a batch that
# does fit; and a step of that is done.
does_not_fit() {
    local log=$work/fit-$1.log fits
    if large_step "fit-$1" "$1" 1024; then
        fail "1024 samples of 1024 tokens fit"
        return 1
    fi
    grep 'error:' "$log" || tail -n 8 "$log"
    [ "$(grep -c 'error:' "$log")" = 1 ] || fail "not one message"
    [ ! -s "$work/fit-$1/metrics.jsonl" ] || fail "a step was done"
    fits=$(sed -n 's/.*--per-device-train-batch-size \([0-9]*\)).*/\1/p' "$log" | head -n 1)
    [ "${fits:-0}" -ge 1 ] || { fail "no batch named"; return 1; }
    large_step "fits-$1" "$1" "$fits" || { fail "$fits do not fit either"; tail -n 8 "$work/fits-$1.log"; }
    remark="$fits fit: $(sed -n 's/.*"memory_bytes":\([0-9]*\).*/\1/p' "$work/fits-$1/metrics.jsonl" | tail -n 1) bytes"
}

# broken FAULT RANKS PATTERN: NCCL or the GPU of the last rank fails in training (tests/gpu/fault.c). The job ends within
# 30 s, by one message with PATTERN.
broken() {
    local name=broken-$1-$2 end
    cc -std=c11 -shared -fPIC -o "$work/fault.so" "$srcdir/tests/gpu/fault.c" -ldl || return 1
    if (export FAULT=$1 FAULT_RANK=$(($2 - 1)) FAULT_AFTER=500 LD_PRELOAD=$work/fault.so RANKS=$2 STAGE=1 LIMIT_S=60
        train "$name" cuda 1000000 bf16) >/dev/null 2>&1; then
        fail "it went on"
    fi
    end=$(($(date +%s) - $(stat -c %Y "$work/$name/metrics.jsonl" || echo 0)))
    remark="ended $end s after the last step"
    [ $end -le 30 ] || fail "$remark"
    grep 'error:' "$work/$name.log"
    [ "$(grep -c 'error:' "$work/$name.log")" = 1 ] || fail "not one message"
    grep -q "$3" "$work/$name.log" || { fail "no message with $3"; tail -n 8 "$work/$name.log"; }
}

# each_family LOG FAMILIES COMMAND...: the kernels' tests, a process for each family, all at once, under COMMAND. FLAGS are
# the tests'.
each_family() {
    local log=$1 families=$2 family job pids=() bad=0
    shift 2
    for family in $families; do
        # shellcheck disable=SC2086 # the flags are words
        timeout "${FAMILY_S:-180}" "$@" tests/kernels/test_kernels ${FLAGS:-} cuda "$family" >"$work/$log-$family.log" 2>&1 &
        pids+=($!)
    done
    for job in "${pids[@]}"; do
        wait "$job" || bad=$((bad + 1))
    done
    for family in $families; do
        grep -h 'cases, ' "$work/$log-$family.log" || fail "$family ended early"
        grep -h -m 6 -A 12 '^FAILED\|=* \(Invalid\|Error\|Race\|Warning\)' "$work/$log-$family.log"
    done
    return "$((bad != 0))"
}

# sanitize TOOL FAMILIES [FLAGS [KERNELS]]: the kernels under compute-sanitizer; KERNELS: words, one of which is in the name
# of each that is looked at (all).
sanitize() {
    command -v compute-sanitizer >/dev/null || { echo "there is no compute-sanitizer"; return 77; }
    local log=$1${3:-} option word only=()
    option=$(compute-sanitizer --help | grep -o -m 1 -e '--kernel-name\>' -e '--kernel-regex\>' | head -n 1)
    for word in ${4:-}; do
        [ -z "$option" ] || only+=("$option" "kernel_substring=$word")
    done
    FLAGS=${3:-} each_family "$log" "$2" compute-sanitizer "${only[@]}" --tool "$1" --error-exitcode 9 --report-api-errors no
    local status=$?
    remark=$(cat "$work/$log"-*.log | sed -n 's/^=* \(ERROR\|RACECHECK\) SUMMARY: //p' | sort | uniq -c | sort -rn |
        awk '{ n = $1; $1 = ""; printf "%s%d x%s", sep, n, $0; sep = ", " }')
    return $status
}

# metrics' memory_bytes are what nvidia-smi shows, within 1 GiB.
memory_agrees() {
    local job shown said
    train memory cuda 1000000 bf16 >/dev/null 2>&1 &
    job=$!
    for _ in $(seq 60); do
        sleep 0.5
        [ -f "$work/memory/metrics.jsonl" ] && [ "$(wc -l <"$work/memory/metrics.jsonl")" -gt 5 ] && break
    done
    shown=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | sort -n | tail -n 1)
    pgrep -f "^$mpizero train .*$work/memory$" | xargs -r kill -9
    wait $job
    said=$(column memory_bytes "$work/memory/metrics.jsonl" | tail -n 1)
    remark="metrics say $((${said:-0} >> 20)) MiB, nvidia-smi $shown MiB"
    [ "${said:-0}" -gt 0 ] && [ $(((said >> 20) - shown)) -lt 1024 ] && [ $((shown - (said >> 20))) -lt 1024 ] ||
        fail "$remark"
}
