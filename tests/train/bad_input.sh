#!/usr/bin/env bash
# Wrong input gives one clear message and a non-zero exit on all ranks, and no hang. A case is a name, the exit code, a piece
# of the message, and the arguments that differ from a run that would work.
. "${srcdir:-.}/tests/train/lib.sh"
tiny_model "$work/model"
tiny_text "$work/text"
good=(--model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 --max-steps 2 --save-steps 0
    --per-device-train-batch-size 2 --gradient-accumulation-steps 1 --no-save-weights --cpu-threads 1)
n_cases=0

check_message() { # NAME WANT_RC RC FRAGMENT
    n_cases=$((n_cases + 1))
    [ "$3" = "$2" ] || fail "$1: exit code $3, not $2: $(tail -n 2 "$work/log")"
    grep -qF -- "$4" "$work/log" || fail "$1: the message lacks \"$4\": $(tail -n 3 "$work/log")"
    [ "$(grep -cF -- "$4" "$work/log")" -le 3 ] || fail "$1: the message comes $(grep -cF -- "$4" "$work/log") times"
}

# refused NAME RC FRAGMENT ARGS...: on one rank.
refused() {
    local name=$1 want=$2 fragment=$3
    shift 3
    timeout 60 "$mpizero" train "${good[@]}" --output-dir "$work/out" "$@" >"$work/log" 2>&1
    check_message "$name" "$want" $? "$fragment"
}

# refused_config NAME FRAGMENT JSON: a configuration file.
refused_config() {
    printf '%s\n' "$3" >"$work/bad.json"
    refused "$1" 1 "$2" --deepspeed "$work/bad.json"
}

# refused_by_all NAME FRAGMENT ARGS...: on two ranks; mpirun's own exit code is not zero.
refused_by_all() {
    local name=$1 fragment=$2 rc
    shift 2
    timeout 60 mpirun --oversubscribe -n 2 "$mpizero" train "${good[@]}" --output-dir "$work/out" "$@" >"$work/log" 2>&1
    rc=$?
    [ $rc != 124 ] || fail "$name: hung"
    [ $rc != 0 ] || fail "$name: exit code 0"
    check_message "$name" "$rc" "$rc" "$fragment"
}

refused "a run that works" 0 "step 2/2"

# --- command line
refused "unknown flag" 2 "--lerning-rate" --lerning-rate 1
refused "nearest flag" 2 "--learning-rate" --lerning-rate 1
refused "no value" 2 "--max-steps" --max-steps
refused "not a number" 2 "--max-steps" --max-steps many
refused "negative rate" 2 "--learning-rate" --learning-rate -1
refused "stray word" 2 "stray" stray
refused "block too long" 2 "64 positions" --block-size 65
refused "block of one" 2 "--block-size" --block-size 1
refused "unknown schedule" 2 "polynomial" --lr-scheduler-type polynomial
refused "unknown precision" 2 "fp8" --mixed-precision fp8
refused "unknown weights type" 2 "--weights-dtype" --weights-dtype fp64
refused "unknown device" 1 "tpu" --device tpu
refused "split of everything" 2 "--validation-split" --validation-split 1
refused "stage 4" 2 "4" --zero-stage 4

# --- configuration
refused_config "stage 4 in the file" "zero_optimization.stage" '{"train_batch_size": 2, "zero_optimization": {"stage": 4}}'
refused_config "line of the key" "bad.json:3" '{"train_batch_size": 2,
 "zero_optimization": {
   "stage": 7}}'
refused_config "batch sizes contradict" "train_batch_size" '{"train_batch_size": 5, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 1}'
refused_config "wrong type" "gradient_clipping" '{"train_batch_size": 2, "gradient_clipping": "tight"}'
refused_config "not JSON" "bad.json:1" '{"train_batch_size" 2}'
refused_config "duplicate key" "train_batch_size" '{"train_batch_size": 2, "train_batch_size": 2}'
refused_config "both precisions" "bf16" '{"train_batch_size": 2, "fp16": {"enabled": true}, "bf16": {"enabled": true}}'
refused_config "unknown key in a block" "overlap_com" '{"train_batch_size": 2, "zero_optimization": {"stage": 1, "overlap_com": true}}'
refused_config "unknown optimiser" "Adafactor" '{"train_batch_size": 2, "optimizer": {"type": "Adafactor"}}'
refused_config "offload" "offload" '{"train_batch_size": 2, "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme", "nvme_path": "/tmp"}}}'
refused "no such configuration" 1 "nowhere.json" --deepspeed "$work/nowhere.json"

# --- model folder
refused "no such folder" 1 "nowhere" --model "$work/nowhere"
mkdir -p "$work/empty"
refused "a folder without config.json" 1 "config.json" --model "$work/empty"
tiny_model "$work/llama" && sed -i 's/"gpt2"/"llama"/' "$work/llama/config.json"
refused "another family" 1 "llama" --model "$work/llama"
tiny_model "$work/heads" && sed -i 's/"n_head": 3/"n_head": 5/' "$work/heads/config.json"
refused "heads that do not divide" 1 "n_head" --model "$work/heads"
tiny_model "$work/vocab" && sed -i 's/259/200/' "$work/vocab/config.json"
refused "a vocabulary too small" 1 "200" --model "$work/vocab"
tiny_model "$work/act" && sed -i 's/gelu_new/swish2/' "$work/act/config.json"
refused "an unknown activation" 1 "swish2" --model "$work/act"
tiny_model "$work/syntax" && echo "}" >>"$work/syntax/config.json"
refused "config.json is not JSON" 1 "config.json" --model "$work/syntax"

# weights: made by a run, then damaged
"$mpizero" train "${good[@]}" --save-weights --weights-dtype fp32 --output-dir "$work/made" >"$work/log" 2>&1 || fail "making weights"
weights=$work/made/weights
for what in truncated header shape; do cp -r "$weights" "$work/$what"; done
truncate -s -100 "$work/truncated/model.safetensors"
refused "truncated weights" 1 "model.safetensors" --model "$work/truncated"
printf '\377\377\377\377\377\377\377\177' | dd of="$work/header/model.safetensors" conv=notrunc status=none
refused "a header length beyond the file" 1 "model.safetensors" --model "$work/header"
sed -i 's/"n_layer": 3/"n_layer": 4/' "$work/shape/config.json"
refused "weights of a smaller model" 1 "transformer.h.3" --model "$work/shape"
cp -r "$weights" "$work/wide"
sed -i 's/"n_embd": 36/"n_embd": 48/' "$work/wide/config.json"
refused "weights of another width" 1 "expected shape" --model "$work/wide"
mkdir -p "$work/torch" && cp "$weights/config.json" "$work/torch/" && touch "$work/torch/pytorch_model.bin"
refused "only pytorch_model.bin" 1 "pytorch_model.bin" --model "$work/torch"

# --- tokenizer and data
refused "no tokenizer in the folder" 1 "--tokenizer byte" --tokenizer "$work/model"
refused "no such text" 1 "nothere" --train-data "$work/nothere"
: >"$work/void"
refused "an empty text" 1 "void" --train-data "$work/void"
printf 'short' >"$work/short"
refused "a text shorter than a block" 1 "32" --train-data "$work/short"
printf '{"text": "one"}\n{"text": 2}\n' >"$work/bad.jsonl"
refused "a line whose text is a number" 1 "bad.jsonl:2" --train-data "$work/bad.jsonl"
printf '{"text": "one"}\n{"texx": "two"}\n' >"$work/bad.jsonl"
refused "a line without the field" 1 "bad.jsonl:2" --train-data "$work/bad.jsonl"
printf '{"text": "one"}\n{"text": \n' >"$work/bad.jsonl"
refused "a broken line" 1 "bad.jsonl:2" --train-data "$work/bad.jsonl"
head -c 900 "$work/text" >"$work/few"
refused "a split that leaves nothing" 1 "few" --train-data "$work/few" --validation-split 0.99

# --- output
touch "$work/file"
refused "the output is a file" 1 "file" --output-dir "$work/file"
if [ "$(id -u)" != 0 ]; then
    mkdir -p "$work/locked" && chmod 555 "$work/locked"
    refused "no permission" 1 "locked" --output-dir "$work/locked/run"
else
    refused "a read-only file system" 1 "/proc/mpizero" --output-dir /proc/mpizero
fi

# --- resuming
refused "nothing to resume" 1 "checkpoint" --resume latest --output-dir "$work/fresh"
refused "no such checkpoint" 1 "step-000009" --resume "$work/made/checkpoints/step-000009"
tiny_model "$work/other" && sed -i 's/"n_embd": 36/"n_embd": 48/' "$work/other/config.json"
refused "a checkpoint of another model" 1 "another model" --model "$work/other" --resume "$work/made" --max-steps 4
refused "another global batch" 1 "global batch" --resume "$work/made" --per-device-train-batch-size 3 --max-steps 4
refused "another block size" 1 "--block-size 32" --resume "$work/made" --block-size 16 --max-steps 4
step=$work/made/checkpoints/step-000002
cp -r "$work/made" "$work/flipped"
file=$work/flipped/checkpoints/step-000002/manifest.json
printf 'X' | dd of="$file" bs=1 seek=40 conv=notrunc status=none
refused "a damaged manifest" 1 "manifest.json" --resume "$work/flipped" --max-steps 4
cp -r "$work/made" "$work/cut"
truncate -s -64 "$work/cut/checkpoints/step-000002/rank-00000.h5"
refused "a truncated shard" 1 "rank-00000.h5" --resume "$work/cut" --max-steps 4
rm "$work/cut/checkpoints/step-000002/rank-00000.h5"
refused "a missing shard" 1 "rank-00000.h5" --resume "$work/cut" --max-steps 4
[ -d "$step" ] || fail "$step is not there"

# --- several ranks
refused_by_all "no such text, two ranks" "nothere" --train-data "$work/nothere"
refused_by_all "a missing model, two ranks" "nowhere" --model "$work/nowhere"
refused_by_all "stage 4, two ranks" "4" --zero-stage 4
refused_by_all "nothing to resume, two ranks" "checkpoint" --resume latest --output-dir "$work/fresh"
printf '{"train_batch_size": 3}' >"$work/bad.json"
refused_by_all "a batch that two ranks cannot share" "train_batch_size" --deepspeed "$work/bad.json"
timeout 60 mpirun --oversubscribe -n 1 "$mpizero" train "${good[@]}" --output-dir "$work/out" --learning-rate 1e-3 : \
    -n 1 "$mpizero" train "${good[@]}" --output-dir "$work/out" --learning-rate 2e-3 >"$work/log" 2>&1
rc=$?
[ $rc != 0 ] && [ $rc != 124 ] || fail "ranks with different flags: exit code $rc"
check_message "ranks with different flags" $rc $rc "configuration"
timeout 60 mpirun --oversubscribe -n 1 "$mpizero" train "${good[@]}" --output-dir "$work/out" : \
    -n 1 "$mpizero" train "${good[@]}" --output-dir "$work/out" --model "$work/other" >"$work/log" 2>&1
rc=$?
[ $rc != 0 ] && [ $rc != 124 ] || fail "ranks with different models: exit code $rc"
check_message "ranks with different models" $rc $rc "config.json"
cp "$mpizero" "$work/newer" && printf 'x' >>"$work/newer"
timeout 60 mpirun --oversubscribe -n 1 "$mpizero" train "${good[@]}" --output-dir "$work/out" : \
    -n 1 "$work/newer" train "${good[@]}" --output-dir "$work/out" >"$work/log" 2>&1
rc=$?
[ $rc = 1 ] || fail "ranks with different programs: exit code $rc"
check_message "ranks with different programs" $rc $rc "the same mpizero on all nodes"
OMPI_COMM_WORLD_SIZE='' SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=4 SLURM_STEP_ID=0 SLURM_JOB_ID=1 \
    timeout 60 "$mpizero" train "${good[@]}" --output-dir "$work/out" >"$work/log" 2>&1
rc=$?
check_message "one of four singletons" 1 $rc "srun"
echo "$n_cases cases"
finish
