#!/usr/bin/env bash
# A flipped byte in any kind of file of a checkpoint, a file cut short, a file gone: training refuses it on all ranks, names
# the file and the data set, and the checkpoint to use instead; that one loads. POSITIONS=12 for more places.
. "${srcdir:-.}/tests/train/lib.sh"
positions=${POSITIONS:-1}
tiny_model "$work/model"
tiny_text "$work/text" 9000
common=(--model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 --per-device-train-batch-size 4
    --gradient-accumulation-steps 1 --learning-rate 1e-3 --zero-stage 2 --no-save-weights --cpu-threads 1)
ranks 2 "$mpizero" train "${common[@]}" --max-steps 8 --save-steps 4 --output-dir "$work/whole" >"$work/log" 2>&1 ||
    fail "the undisturbed run: $?"
column loss "$work/whole/metrics.jsonl" | tail -n 4 >"$work/want"
rm -rf "$work/run"
cp -r "$work/whole" "$work/run"
checkpoints=$work/run/checkpoints
new=$checkpoints/step-000008
n_cases=0

# resume FROM: on two ranks; the messages go to $work/log
resume() {
    timeout 60 mpirun --oversubscribe -n 2 "$mpizero" train "${common[@]}" --max-steps 8 --save-steps 0 \
        --output-dir "$work/run" --resume "$1" >"$work/log" 2>&1
}

# refused FROM FRAGMENT...: not resumed, no hang, and each fragment is said, at most by one rank
refused() {
    local from=$1 rc words
    shift
    n_cases=$((n_cases + 1))
    resume "$from"
    rc=$?
    [ $rc != 124 ] || fail "$what, --resume $from: hung"
    [ $rc != 0 ] || fail "$what, --resume $from: exit code 0"
    for words in "$@" "step-000004"; do
        grep -qF -- "$words" "$work/log" || fail "$what, --resume $from: no \"$words\" in: $(tail -n 3 "$work/log")"
    done
    [ "$(grep -c "\] error: " "$work/log")" = 1 ] || fail "$what: $(grep -c "\] error: " "$work/log") errors, not one"
}

# resumed: latest goes on from the older checkpoint, says so, and comes to the same losses
resumed() {
    n_cases=$((n_cases + 1))
    resume latest || fail "$what, --resume latest: $? $(tail -n 2 "$work/log")"
    grep -q "step-000008/$file.*Looking for another" "$work/log" || fail "$what, --resume latest: no warning that names $file"
    grep -q "resumed from .*step-000004" "$work/log" || fail "$what, --resume latest: not from step 4"
    column loss "$work/run/metrics.jsonl" | tail -n 4 >"$work/have"
    same_values 1e-6 "$work/want" "$work/have" "$what: losses after the older checkpoint"
    restore
}

restore() {
    rm -rf "$work/run"
    cp -rp "$work/whole" "$work/run"
}

# flip FILE BYTE: turns all bits of a byte over, and back again when called twice
flip() {
    local value
    value=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "\\$(printf %03o $((255 - value)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# places FIRST LAST: byte numbers from FIRST to LAST
places() {
    awk -v a="$1" -v b="$2" -v n="$positions" 'BEGIN { for (i = 0; i < n; i++) print int(a + (b - a) * (i + 0.5) / n) }'
}

for file in rank-00000.h5 rank-00001.h5; do
    # "kind", "tensor", shape, offset, count, byte: the data sets of this file as the manifest lists them
    tr -d '\n' <"$new/manifest.json" | sed "s/.*\"$file\"//; s/\"name\": *\"rank.*//" |
        grep -o '\["[a-z0-9_]*", *"[^"]*", *\[[0-9, ]*\], *[0-9]*, *[0-9]*, *[0-9]*' | tr -d '[]",' >"$work/runs"
    [ -s "$work/runs" ] || fail "no data sets of $file in the manifest"
    # one data set of each kind, in it as many places as asked for
    awk '!seen[$1]++ { print $1, $2, $NF, $(NF - 1) }' "$work/runs" >"$work/chosen"
    while read -r kind tensor begin count <&3; do
        data_set="data set /$kind/$tensor"
        for at in $(places "$begin" $((begin + 4 * count - 1))); do
            what="byte $at of $file"
            flip "$new/$file" "$at"
            refused "$new" "$new/$file" "$data_set"
            flip "$new/$file" "$at"
        done
    done 3<"$work/chosen"
    # --resume latest cannot know before it reads
    flip "$new/$file" "$at"
    refused latest "$new/$file" "$data_set" "use an older checkpoint"
    n_cases=$((n_cases + 1))
    resume "$checkpoints/step-000004" || fail "$what: the older checkpoint does not load: $(tail -n 2 "$work/log")"
    column loss "$work/run/metrics.jsonl" | tail -n 4 >"$work/have"
    same_values 1e-6 "$work/want" "$work/have" "$what: losses after the older checkpoint"
    restore
    # HDF5's own structures: what lies before the first data set and behind the last
    first=$(awk '{ print $NF }' "$work/runs" | sort -n | head -n 1)
    for at in 0 $(places 0 $((first - 1))) $(($(stat -c %s "$new/$file") - 1)); do
        awk -v at="$at" '{ if (at >= $NF && at < $NF + 4 * $(NF - 1)) inside = 1 } END { exit inside }' "$work/runs" || continue
        what="byte $at of $file"
        flip "$new/$file" "$at"
        refused "$new" "$new/$file" "HDF5 structures"
        flip "$new/$file" "$at"
    done
done

file=manifest.json
for at in $(places 0 $(($(stat -c %s "$new/$file") - 1))); do
    what="byte $at of $file"
    flip "$new/$file" "$at"
    refused "$new" "$new/$file"
    resumed
done

for file in manifest.json rank-00000.h5 rank-00001.h5; do
    for length in 0 $(places 1 $(($(stat -c %s "$new/$file") - 1))); do
        what="$file cut to $length bytes"
        truncate -s "$length" "$new/$file"
        refused "$new" "$new"
        resumed
    done
    what="$file gone"
    rm "$new/$file"
    refused "$new" "$file"
    [ $file = rank-00000.h5 ] || restore
    [ $file != rank-00000.h5 ] || resumed
done
what="undamaged" file=
n_cases=$((n_cases + 1))
resume latest && grep -q "resumed from .*step-000008" "$work/log" || fail "without damage: not from step 8"
echo "$n_cases cases"
finish
