#!/usr/bin/env bash
# How long an asynchronous save holds real training up, against the synchronous one (docs/PERFORMANCE.md).
#
#     tests/bench/save_ratio.sh [RANKS [THREADS]]        1 2; on the CPU, ZeRO-2 when there are several ranks
#
#   MPIZERO  the program (build/mpizero)    ROUNDS  how often each kind runs, in turn (3)
#   SAVES    in a run (3)                   BATCH   sequences of a step (4)
#   RUNNER   a command to put before each run
#
# GPT-2 124M in fp32 (1.5 GB of state), BATCH x 128 tokens, a save every 4 steps. The step before a save works out its CRCs,
# the step after it runs beside it: a save costs what these two take longer than the steps around them. `none` saves
# nothing and shows how far the figures can be trusted. Medians of all saves of all rounds.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
ranks=${1:-1} threads=${2:-2}
mpizero=${MPIZERO:-$here/../../build/mpizero} every=4
work=$(mktemp -d "${TMPDIR:-/tmp}/save-ratio.XXXXXX")
trap 'rm -rf "$work"' EXIT

mkdir "$work/model"
cat >"$work/model/config.json" <<JSON
{"model_type": "gpt2", "vocab_size": 50257, "n_positions": 128, "n_embd": 768, "n_layer": 12, "n_head": 12,
 "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
JSON
cat >"$work/config.json" <<JSON
{"train_batch_size": ${BATCH:-4}, "gradient_clipping": 1.0, "zero_optimization": {"stage": $([ "$ranks" = 1 ] && echo 0 || echo 2)},
 "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}
JSON
awk 'BEGIN { srand(1); for (i = 0; i < 200000; i++) printf "%c", 32 + int(rand() * 90) }' >"$work/text"
cat >"$work/run" <<'RUN'
set -o pipefail
"$@" 2>&1 | while IFS= read -r line; do echo "$EPOCHREALTIME $line"; done
RUN

# Prints `kind step seconds`, from one step's line to the next.
timed() {
    local flags=(--save-steps "$every")
    case $1 in none) flags=(--save-steps 0) ;; sync) flags+=(--no-save-async) ;; esac
    local launch=()
    # Behind a pipe, for mpirun makes believe that there is a terminal.
    [ "$ranks" = 1 ] || launch=(mpirun --oversubscribe -n "$ranks" bash -c 'set -o pipefail; "$@" | cat' _)
    rm -rf "$work/out"
    # shellcheck disable=SC2086 # a command
    ${RUNNER:-} bash "$work/run" ${launch[@]+"${launch[@]}"} "$mpizero" train --device cpu --cpu-threads "$threads" \
        --model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 128 --deepspeed "$work/config.json" \
        --max-steps "$(((${SAVES:-3} + 1) * every))" "${flags[@]}" --save-total-limit 2 --no-save-weights --logging-steps 1 \
        --output-dir "$work/out" >"$work/log" || { tail -n 5 "$work/log" >&2; exit 1; }
    awk -v kind="$1" '$2 == "step" { if (last) printf "%s %d %.4f\n", kind, $3, $1 - last; last = $1 }' "$work/log"
}

for _ in $(seq "${ROUNDS:-3}"); do
    for kind in none async sync; do
        timed "$kind" >"$work/steps"
        awk -v every="$every" '
            { kind = $1; t[$2] = $3; last = $2 }
            END { for (s = every; s + 2 < last; s += every) {
                      usual = (t[s - 1] + t[s + 2]) / 2
                      printf "%s %.4f %.4f %.4f\n", kind, t[s] - usual, t[s + 1] - usual, usual } }' "$work/steps" |
            tee -a "$work/saves"
    done
done | awk '{ printf "%s: the step before %+.3f s, the step beside %+.3f s, others %.3f s\n", $1, $2, $3, $4 }'
for kind in none async sync; do
    awk -v kind="$kind" '$1 == kind { print $2 + $3 }' "$work/saves" | sort -g |
        awk -v kind="$kind" '{ v[NR] = $1 } END { print kind, NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
done | awk -v ranks="$ranks" -v threads="$threads" '{ t[$1] = $2 }
    END { printf "%d x %d: a save costs %.1f ms asynchronous, %.1f ms synchronous: %.1f %%; none %.1f ms\n", ranks, threads,
                 1e3 * t["async"], 1e3 * t["sync"], 100 * t["async"] / t["sync"], 1e3 * t["none"] }'
