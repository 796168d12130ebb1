#!/usr/bin/env bash
# SIGKILL to one of two ranks at random moments around saves: a good checkpoint is always there, it resumes, and the run
# ends with the losses of an undisturbed one. KILLS=100 for the long form.
. "${srcdir:-.}/tests/train/lib.sh"
kills=${KILLS:-8}
steps=${STEPS:-150}
tiny_model "$work/model"
tiny_text "$work/text"
RANDOM=${SEED:-4711}
common=(--model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 --no-save-weights --zero-stage 2
    --per-device-train-batch-size 4 --gradient-accumulation-steps 1 --learning-rate 1e-3 --save-steps 3
    --save-total-limit 3 --max-steps "$steps" --cpu-threads 1)
ranks 2 "$mpizero" train "${common[@]}" --save-steps 0 --output-dir "$work/whole" >"$work/log" 2>&1 || fail "whole: $?"
column loss "$work/whole/metrics.jsonl" >"$work/want"

resume=()
killed=0
for _ in $(seq $((kills * 3))); do
    mpirun --oversubscribe -n 2 "$mpizero" train "${common[@]}" --output-dir "$work/run" "${resume[@]}" >"$work/log" 2>&1 &
    pid=$!
    # start-up takes a part of a second; the run is killed somewhere in it or, more often, among the steps after it
    sleep "$(awk -v r=$RANDOM 'BEGIN { printf "%.3f", 0.25 + r / 32768 * 1.2 }')"
    victim=$(pgrep -P $pid -f 'mpizero train' | sed -n "$((RANDOM % 2 + 1))p")
    if [ -n "$victim" ] && kill -9 "$victim" 2>/dev/null; then killed=$((killed + 1)); fi
    wait $pid
    rc=$?
    if [ -e "$work/run/checkpoints/latest" ]; then
        resume=(--resume latest)
        "$mpizero" inspect --verify "$work/run" >"$work/inspect" 2>&1 || { fail "kill $killed: $(tail -n 1 "$work/inspect")"; break; }
    elif [ -n "${resume[*]}" ]; then
        fail "kill $killed: the checkpoints are gone"
        break
    fi
    if [ $rc = 0 ]; then # the run came to its end: start over
        column loss "$work/run/metrics.jsonl" >"$work/have"
        same_values 1e-6 "$work/want" "$work/have" "losses of a run killed again and again"
        [ "$killed" -lt "$kills" ] || break
        rm -rf "$work/run"
        resume=()
    fi
    [ "$killed" -lt "$kills" ] || break
done
echo "$killed kills"
[ "$killed" -gt 0 ] || fail "nothing was killed"
ranks 2 "$mpizero" train "${common[@]}" --output-dir "$work/run" "${resume[@]}" >"$work/log" 2>&1 || fail "the last run: $?"
column loss "$work/run/metrics.jsonl" >"$work/have"
same_values 1e-6 "$work/want" "$work/have" "losses of a run killed again and again"
[ "$(find "$work/run/checkpoints" -maxdepth 1 -name 'step-*' | wc -l)" -le 3 ] || fail "more than 3 checkpoints kept"
finish
