#!/bin/bash
# Wrong command lines: the message and the exit code of each.
set -u
builddir=${builddir:-.}
program=$builddir/mpizero
wrong=0
n=0

# check CODE WORDS ARGUMENTS...: the exit code, and words that standard error or output must hold
check() {
    local code=$1 words=$2 text rc
    shift 2
    text=$("$program" "$@" 2>&1)
    rc=$?
    n=$((n + 1))
    if [ $rc != "$code" ] || ! grep -qF -e "$words" <<<"$text"; then
        echo "mpizero $*: expected $code and \"$words\", found $rc and: $text"
        wrong=1
    fi
}

check 2 "Usage: mpizero"
check 0 "Commands:" --help
check 0 "mpizero " --version
check 0 "Usage: mpizero train" train --help
check 0 "Usage: mpizero inspect PATH" inspect -h
check 0 "Usage: mpizero eval" eval --nonsense-comes-later --help
check 2 "unknown command \"trian\", did you mean train?" trian
check 2 "unknown command \"xyzzy\"" xyzzy
check 2 "unknown flag --lerning-rate, did you mean --learning-rate?" train --model m --lerning-rate 1
check 2 "unknown flag --lerning_rate, did you mean --learning-rate?" train --model m --lerning_rate=1
check 2 "unknown flag --qqqqqqqqqqq (mpizero train --help" train --qqqqqqqqqqq
check 2 "unknown flag --" train --
check 2 "unknown flag --" train --=3
check 2 "mpizero train needs --model" train --train-data t
check 2 "mpizero inspect needs PATH" inspect
check 2 "mpizero consolidate needs --output-dir" consolidate some/where
check 2 "unexpected argument \"more\"" inspect one more
check 2 "unexpected argument \"data.txt\"" train --model m data.txt
check 2 "--max-steps: expected a value, N, found none" train --model m --max-steps
check 2 "--max-steps: expected a value, N, found none" train --max-steps --model m
check 2 "--max-steps: expected a whole number of at least 1, found \"ten\"" train --model m --max-steps ten
check 2 "--max-steps: expected a whole number of at least 1, found \"2.5\"" train --model m --max-steps=2.5
check 2 "--max-steps: expected a whole number of at least 1, found \"\"" train --model m --max-steps=
check 2 "--max-steps: expected a whole number of at least 1, found \"-4\"" train --model m --max-steps -4
check 2 "--zero-stage: expected a whole number from 0 to 3, found \"4\"" train --model m --zero-stage 4
check 2 "--learning-rate: expected a number" train --model m --learning-rate fast
check 2 "--learning-rate: expected a number" train --model m --learning-rate nan
check 2 "--validation-split: expected a number from 0 to 1" train --model m --validation-split 2
check 2 "--mixed-precision: expected one of no, fp16, bf16, found \"fp8\"" train --model m --mixed-precision fp8
check 2 "--mixed-precision: expected one of no, fp16, bf16, found \"fp\"" train --model m --mixed-precision fp
check 2 "--lr-scheduler-type: expected one of" train --model m --lr-scheduler-type step
check 2 "--no-shuffle takes no value" train --model m --no-shuffle=yes
check 2 "unknown flag --no-model" train --no-model
check 2 "--deepspeed and --config-file set the same" train --model m --deepspeed a --config-file b
check 2 "--log-level: expected one of error, warning, info, debug" env --log-level loud
# 2 is for the command line alone: files that are missing or wrong are failures, 1, in every command
check 1 "nowhere" inspect "$builddir/nowhere"
check 1 "nowhere" consolidate "$builddir/nowhere" --output-dir "$builddir/nowhere"
for command in train eval generate estimate; do check 1 "nowhere" $command --model "$builddir/nowhere"; done
check 1 "nowhere" estimate --model "${srcdir:-.}/examples/gpt2-demo" --deepspeed "$builddir/nowhere"
check 1 "neither a checkpoint" inspect "${srcdir:-.}/examples"
check 0 "\"mpizero\"" env --json
check 0 "hdf5" env --log_level=error
check 0 "1 rank on 1 node" topo
check 0 "\"nodes\": 1" topo --json --no-json --json
check 0 "\"machines\":" topo --json
echo "$n command lines"
exit $wrong
