#!/usr/bin/env bash
# Training without fp32 master weights: it learns in every stage; a checkpoint goes on as if nothing had happened on as
# many ranks, and nearly so on others; with a checkpoint that has masters a run without goes on, and the other way round;
# weights, inspect and estimate say what is kept.
. "${srcdir:-.}/tests/train/lib.sh"
DROPOUT=0.1 tiny_model "$work/model"
tiny_text "$work/text" 14000

# train NAME RANKS STAGE MICRO ACCUMULATION BF16-KEYS [FLAG...]
train() {
    local name=$1 n=$2
    cat >"$work/$name.json" <<JSON
{"train_batch_size": 12, "train_micro_batch_size_per_gpu": $4, "gradient_accumulation_steps": $5,
 "optimizer": {"type": "AdamW", "params": {"lr": 0.002, "weight_decay": 0.1}},
 "bf16": {"enabled": true$6}, "data_types": {"grad_accum_dtype": "fp32"},
 "zero_optimization": {"stage": $3, "reduce_bucket_size": 3000, "stage3_param_persistence_threshold": 50,
    "stage3_gather_16bit_weights_on_model_save": true}}
JSON
    shift 6
    ranks "$n" "$mpizero" train --model "$work/model" --tokenizer byte --train-data "$work/text" --block-size 32 \
        --deepspeed "$work/$name.json" --max-steps 20 --output-dir "$work/$name" "$@" \
        >"$work/$name.log" 2>&1 || { fail "$name ended with $?"; tail -n 5 "$work/$name.log"; }
}

# goes_on NAME FROM TOLERANCE: the last 10 losses of NAME are those of FROM.
goes_on() {
    column loss "$work/$2/metrics.jsonl" | tail -n 10 >"$work/want"
    column loss "$work/$1/metrics.jsonl" >"$work/have"
    if [ "$3" = 0 ]; then
        cmp "$work/want" "$work/have" || fail "$1: not the same losses as $2"
    else
        same_values "$3" "$work/want" "$work/have" "losses of $1 and $2"
    fi
}

plain=', "bf16_master_weights_and_grads": true'
# shellcheck disable=SC2034 # used by name
small=$plain', "bf16_optimizer_states": true'
train masters 2 2 3 2 "" --save-steps 10 --no-save-weights
for form in plain small; do
    keys=${!form}
    train $form 2 3 3 2 "$keys" --stochastic-rounding --save-steps 10
    from=$work/$form/checkpoints/step-000010
    same_values 2e-2 <(column loss "$work/masters/metrics.jsonl") <(column loss "$work/$form/metrics.jsonl") \
        "losses of $form and with masters"
    "$mpizero" inspect "$from" --verify >"$work/inspect" || fail "$form: the checkpoint is damaged"
    "$mpizero" inspect "$from" --json | grep -q '"dtype": *"bf16"' || fail "$form: inspect does not say bf16"
    grep -q '"BF16"' "$work/$form/weights/model.safetensors" || fail "$form: no bf16 weights were saved"
    "$mpizero" consolidate "$work/$form/checkpoints/step-000020" --output-dir "$work/$form/whole" >"$work/log" 2>&1 ||
        fail "$form: consolidate"
    for folder in weights whole; do
        "$mpizero" eval --model "$work/$form/$folder" --tokenizer byte --validation-data "$work/text" --block-size 32 \
            --json 2>"$work/log" | sed -n 's/.*"eval_loss": *\([0-9.e+-]*\).*/\1/p' >"$work/$folder.eval"
    done
    [ -s "$work/whole.eval" ] && cmp "$work/weights.eval" "$work/whole.eval" ||
        fail "$form: the weights saved are not the checkpoint's"

    train $form-same 2 3 3 2 "$keys" --stochastic-rounding --save-steps 0 --no-save-weights --resume "$from"
    goes_on $form-same $form 0
    for case in "1 0 12 1" "3 1 4 1" "2 2 3 2"; do
        set -- $case
        train $form-n$1-stage$2 "$@" "$keys" --stochastic-rounding --save-steps 0 --no-save-weights --resume "$from"
        goes_on $form-n$1-stage$2 $form 2e-2
    done
    train $form-to-masters 1 0 12 1 "" --save-steps 0 --no-save-weights --resume "$from"
    goes_on $form-to-masters $form 2e-2
    grep -q 'master weights begin as these' "$work/$form-to-masters.log" || fail "$form-to-masters does not say so"
    train masters-to-$form 1 0 12 1 "$keys" --stochastic-rounding --save-steps 0 --no-save-weights \
        --resume "$work/masters/checkpoints/step-000010"
    goes_on masters-to-$form masters 2e-2
    grep -q 'rounded to bf16' "$work/masters-to-$form.log" || fail "masters-to-$form does not say so"
done

# 12 and 8 bytes per parameter instead of 16, and files of 10 and 6 bytes instead of 12
bytes() {
    "$mpizero" inspect "$work/$1/checkpoints/step-000010" --json | tr ',' '\n' | sed -n 's/^ *"bytes": *\([0-9]*\)$/\1/p' |
        sort -n | tail -n 1
}
echo "bytes of checkpoints: masters $(bytes masters), without $(bytes plain), all bf16 $(bytes small)"
[ "$(bytes small)" -lt "$(bytes plain)" ] && [ "$(bytes plain)" -lt "$(bytes masters)" ] ||
    fail "checkpoints without masters are not smaller"
for form in plain small; do
    "$mpizero" estimate --model "$work/model" --deepspeed "$work/$form.json" --ranks 2 --json >"$work/estimate" ||
        fail "estimate of $form"
    grep -q '"master": *0[,}]' "$work/estimate" || fail "estimate of $form counts master weights"
done
finish
