# shellcheck shell=bash
# PARTS=nodes of tests/gpu/run, which sources this: four GPUs of one machine stand for two nodes of two. Between the nodes
# data goes over UCX (MPI where there is no UCX), through this machine's memory.

# nodes_stages PRECISION TOLERANCE: two nodes beside one GPU, and stage 3 twice with the same bits.
nodes_stages() {
    local stage
    for stage in 0 1 2 3; do
        RANKS=4 STAGE=$stage train "nodes-$1-$stage" cuda 20 "$1" --ranks-per-node 2 || return 1
        same_values "$2" "$work/cuda-$1.loss" "$work/nodes-$1-$stage.loss" "losses in stage $stage"
    done
    RANKS=4 STAGE=3 train "nodes-$1-again" cuda 20 "$1" --ranks-per-node 2 || return 1
    cmp "$work/nodes-$1-again.loss" "$work/nodes-$1-3.loss" && cmp "$work/nodes-$1-again.norm" "$work/nodes-$1-3.norm"
}

# What the others say on both nodes when a rank of one is late, gone or elsewhere.
nodes_faults() {
    PROBE=tests/comm/gpu_probe MPIRUN_FLAGS='--oversubscribe --bind-to none' builddir=$build \
        "$srcdir/tests/comm/relay_failures.sh"
}

# GPT-2 XL in stage 3 on one node and on two: losses, and the time.
nodes_xl() {
    speed_xl 4 3 || return 1
    local alone=$remark
    XL_NAME=-nodes XL_FLAGS='--ranks-per-node 2' speed_xl 4 3 || return 1
    remark="one node: $alone; two: $remark"
    column loss "$work/xl-4-3/metrics.jsonl" >"$work/xl-one.loss"
    column loss "$work/xl-4-3-nodes/metrics.jsonl" >"$work/xl-nodes.loss"
    paste "$work/xl-one.loss" "$work/xl-nodes.loss"
    same_values 5e-3 "$work/xl-one.loss" "$work/xl-nodes.loss" "losses of GPT-2 XL"
}

# The same with int8 parameters and int4 gradients between the nodes: the time.
nodes_xl_quantized() {
    XL_NAME=-bits XL_FLAGS='--ranks-per-node 2' \
        XL_KEYS=', "zero_quantized_weights": true, "zero_quantized_gradients": true' speed_xl 4 3 || return 1
    column loss "$work/xl-4-3-bits/metrics.jsonl" >"$work/xl-bits.loss"
    paste "$work/xl-one.loss" "$work/xl-bits.loss"
}

# Where UCX knows CUDA.
nodes_direct() {
    MPIZERO_GPU_DIRECT=1 on_ranks 4 tests/comm/nodes 2 >"$work/nodes-direct.log" 2>&1 && return
    ! grep -q 'finds no CUDA here' "$work/nodes-direct.log" || return 77
    last_words "$work/nodes-direct.log"
    return 1
}

# Where a step of it goes.
nodes_profile() {
    on_ranks 4 "$mpizero" bench train --device cuda --model "$work/xl" --block-size 1024 --deepspeed "$work/xl-4-3.json" \
        --warmup 2 --steps 6 --ranks-per-node 2
}

on_nodes() {
    check "collectives, 4 GPUs cut into nodes" collectives 4
    check "collectives of 2 nodes and of one" on_ranks 4 tests/comm/nodes 2
    if [ "${BENCH:-0}" != 0 ]; then
        check "GPT-2 XL, 16 x 1024 x 4, stage 3" nodes_xl
        check "the same with fewer bits" nodes_xl_quantized
        check "collectives of 2 nodes" bench_collectives --ranks-per-node 2
        check "a step of GPT-2 XL on 2 nodes" nodes_profile
    fi
    check "collectives, pieces in GPU memory" nodes_direct
    check "fewer bits between 2 nodes" on_ranks 4 tests/comm/quantized.np4 cuda 2
    check "stages 0 to 3 on 2 nodes, fp32" nodes_stages fp32 1e-5
    check "stages 0 to 3 on 2 nodes, bf16" nodes_stages bf16 2e-2
    check "faults are named on both nodes" nodes_faults
}
