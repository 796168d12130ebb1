#!/usr/bin/env bash
# A disk that is full when a checkpoint is due: training says so and goes on, the older checkpoint stays, nothing half-written
# is left. Once there is room again, checkpoints are written again; if there never is, the run has failed. On a small tmpfs
# where one may be mounted; a limit on the size of files stands for it elsewhere.
. "${srcdir:-.}/tests/train/lib.sh"
if [ -z "${FULL_DISK_MOUNTED:-}" ] && unshare -m true 2>/dev/null; then
    rm -rf "$work"
    FULL_DISK_MOUNTED=1 exec unshare -m bash "$0"
fi
tiny_model "$work/model"
tiny_text "$work/text" 9000
disk=$work/disk
mkdir -p "$disk"
common=(--model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 --per-device-train-batch-size 4
    --gradient-accumulation-steps 1 --learning-rate 1e-3 --zero-stage 1 --no-save-weights --cpu-threads 1
    --output-dir "$disk/run")
if mount -t tmpfs -o size=6m tmpfs "$disk" 2>/dev/null; then
    trap 'umount "$disk"; rm -rf "$work"' EXIT
    fill() { # but for 64 KiB, so that what is written before the first save has room
        cat /dev/zero >"$disk/filler" 2>/dev/null
        truncate -s -64K "$disk/filler"
    }
    drain() { rm -f "$disk/filler"; }
    reason="No space left on device"
else
    echo "no right to mount: a limit of 40 KiB on files stands for the full disk"
    fill() { ulimit -S -f 40; }
    drain() { ulimit -S -f unlimited; }
    reason="File too large"
fi
train() { ranks 2 "$mpizero" train "${common[@]}" "$@" >"$work/log" 2>&1; }
kept() { # NAME STEPS
    local found
    found=$(cd "$disk/run/checkpoints" && echo step-*)
    [ "$found" = "$2" ] || fail "$1: found $found, not $2"
}

ranks 2 "$mpizero" train "${common[@]}" --max-steps 12 --save-steps 0 --output-dir "$work/whole" >"$work/log" 2>&1 ||
    fail "the undisturbed run: $?"
column loss "$work/whole/metrics.jsonl" >"$work/want"
train --max-steps 4 --save-steps 4 || fail "the first part: $(tail -n 2 "$work/log")"

fill
train --max-steps 12 --save-steps 4 --resume latest
rc=$?
drain
[ $rc = 1 ] || fail "the last checkpoint could not be written: exit code $rc, not 1"
grep -q "step 12/12" "$work/log" || fail "training did not go on: $(tail -n 3 "$work/log")"
grep -q "warning: the checkpoint could not be written: .*$reason.*Training goes on" "$work/log" ||
    fail "no warning with \"$reason\": $(tail -n 3 "$work/log")"
grep -q "error: the last checkpoint could not be written; older ones in .* are kept" "$work/log" || fail "no error at the end"
kept "full to the end" "step-000004"
"$mpizero" inspect --verify "$disk/run" >"$work/log" 2>&1 || fail "the checkpoint that is kept: $(tail -n 1 "$work/log")"

train --max-steps 12 --save-steps 4 --resume latest || fail "with room again: $(tail -n 2 "$work/log")"
column loss "$disk/run/metrics.jsonl" | tail -n 8 >"$work/have"
tail -n 8 "$work/want" | same_values 1e-6 /dev/stdin "$work/have" "losses after the disk was full"
kept "with room again" "step-000004 step-000008 step-000012"

if [ -n "${FULL_DISK_MOUNTED:-}" ]; then # room again in the middle of a run
    rm -rf "$disk/run/checkpoints/step-000008" "$disk/run/checkpoints/step-000012"
    fill
    train --max-steps 600 --save-steps 4 --save-total-limit 2 --resume latest &
    pid=$!
    for _ in $(seq 1000); do
        grep -q "could not be written: " "$work/log" && break
        sleep 0.02
    done
    drain
    wait $pid || fail "a disk that was full for a while: exit code $?: $(tail -n 2 "$work/log")"
    kept "full for a while" "step-000596 step-000600"
fi
finish
