#!/usr/bin/env bash
# SIGUSR1 and SIGTERM save at the next step boundary and end with 75; --resume latest goes on to the same losses.
. "${srcdir:-.}/tests/train/lib.sh"
tiny_model "$work/model"
tiny_text "$work/text"
common=(--model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 --no-save-weights
    --per-device-train-batch-size 4 --gradient-accumulation-steps 1 --learning-rate 1e-3 --save-steps 0)
ranks 1 "$mpizero" train "${common[@]}" --max-steps 400 --output-dir "$work/whole" >"$work/log" 2>&1 || fail "whole: $?"
column loss "$work/whole/metrics.jsonl" >"$work/want"
for signal in USR1 TERM; do
    rm -rf "$work/run"
    "$mpizero" train "${common[@]}" --max-steps 400 --output-dir "$work/run" >"$work/log" 2>&1 &
    pid=$!
    for _ in $(seq 3000); do
        [ "$(wc -l 2>/dev/null <"$work/run/metrics.jsonl" || echo 0)" -lt 5 ] || break
        kill -0 $pid 2>/dev/null || break
        sleep 0.02
    done
    kill -$signal $pid
    wait $pid
    rc=$?
    [ $rc = 75 ] || fail "SIG$signal: exit code $rc, not 75"
    [ -e "$work/run/checkpoints/latest" ] || fail "SIG$signal: no checkpoint"
    lines=$(wc -l <"$work/run/metrics.jsonl")
    [ "$lines" -lt 400 ] || echo "note: the run was over before the signal came"
    ranks 1 "$mpizero" train "${common[@]}" --max-steps 400 --output-dir "$work/run" --resume latest >"$work/log" 2>&1 ||
        fail "resume after SIG$signal: $?"
    column loss "$work/run/metrics.jsonl" >"$work/have"
    same_values 1e-6 "$work/want" "$work/have" "losses across SIG$signal"
done
finish
