# shellcheck shell=bash
# PARTS=shared of tests/gpu/run, which sources this: ranks that are nodes of their own share one GPU, so that all that lies
# between the GPUs of several nodes runs on a machine that has one: copies through pinned memory, streams that await words,
# UCX, sums, deadlines. Only NCCL has nothing to do. Every check has a limit; what stands still says how far it has come
# (src/comm/relay.h), and where each thread of it is, as far as a debugger is there to tell.

# last_words LOG: its end, less what mpirun adds.
last_words() {
    grep -v '^---\|^$\|^Primary job\|^a non-zero\|^mpirun \(detected\|has exited\)\|^the job to be\|^  \(Process name\|Exit code\)' "$1" |
        tail -n 12
}

# share NAME N COMMAND...: on N ranks, with what it says in $work/NAME.log and its end shown.
share() {
    local log=$work/$1.log
    shift
    on_ranks "$@" >"$log" 2>&1
    local status=$?
    if [ $status = 0 ]; then
        tail -n 3 "$log"
    else
        grep 'stands still' "$log" | head -n 24
        last_words "$log"
    fi
    return $status
}

# threads_of PID: where its threads are.
threads_of() {
    local task debugger
    for debugger in gdb cuda-gdb /usr/local/cuda/bin/cuda-gdb; do
        command -v "$debugger" >/dev/null || continue
        timeout 30 "$debugger" -batch -p "$1" -ex 'set pagination off' -ex 'thread apply all bt 14' 2>/dev/null |
            grep -v '^\[New LWP\|^warning\|^$' && return
    done
    for task in /proc/"$1"/task/*; do
        echo "thread ${task##*/} ($(cat "$task/comm")): wchan $(cat "$task/wchan"), system call $(cat "$task/syscall")"
    done
}

# Until it is ended: once for each log that says that something stands still, where all processes on the GPU are.
watch_standing() {
    local log pid seen=' '
    while sleep 0.5; do
        for log in "$work"/*.log; do
            case $seen in *" $log "*) continue ;; esac
            grep -q 'stands still' "$log" 2>/dev/null || continue
            seen+="$log "
            for pid in $(grep -l 'libcuda\.so' /proc/[0-9]*/maps 2>/dev/null | cut -d / -f 3); do
                echo "-- process $pid: $(tr '\0' ' ' </proc/"$pid"/cmdline)"
                threads_of "$pid"
            done >"${log%.log}.threads" 2>&1
            echo "-- ${log##*/}: something stands still; its threads:"
            grep -v ' in ?? ()' "${log%.log}.threads" | head -n "${THREAD_LINES:-150}"
        done
    done
}

# What may be done on this GPU while a stream awaits a word, with kernels loaded at the start and as CUDA likes to.
beside_awaits() {
    share awaits-late 1 tests/device/awaits cuda late
    grep '^waits' "$work/awaits-late.log"
    share awaits 1 tests/device/awaits cuda
    local status=$?
    grep -v '^goes on' "$work/awaits.log"
    remark=$(tail -n 1 "$work/awaits.log")
    return $status
}

# The same with CPU streams: UCX and MPI on this machine.
shared_doubles() {
    share doubles 4 tests/comm/relay_nodes.np4
}

shared_collectives() {
    LIMIT_S=150 share "shared-collectives-$1" "$1" "tests/comm/collectives.np$1" cuda
}

# Beside those of CPUs on one node.
shared_nodes() {
    LIMIT_S=150 share "shared-nodes-$1" "$1" tests/comm/nodes 1
}

# Parameters and gradients with fewer bits between nodes: as between CPUs, and near what 16 bits give.
shared_quantized() {
    local keys device
    for keys in '"zero_quantized_weights": true' '"zero_quantized_gradients": true'; do
        for device in cpu cuda; do
            RANKS=2 STAGE=3 LIMIT_S=90 ZERO_KEYS=", $keys" train "quantized-$device" $device 20 bf16 --ranks-per-node 1 \
                --timeout 40 || return 1
        done
        same_values 2e-2 "$work/quantized-cpu.loss" "$work/quantized-cuda.loss" "losses with $keys"
        same_values 5e-2 "$work/cuda-bf16.loss" "$work/quantized-cuda.loss" "losses with $keys and without"
        ! cmp -s "$work/cuda-bf16.loss" "$work/quantized-cuda.loss" || fail "$keys changes nothing"
    done
}

# A profiled step, while the courier launches on streams of its own.
shared_profile() {
    share shared-profile 2 "$mpizero" bench train --device cuda --model "$work/model" --block-size 64 \
        --zero-stage 3 --mixed-precision bf16 --warmup 2 --steps 6 --ranks-per-node 1 --timeout 40 || return 1
    grep '^communication\|^step' "$work/shared-profile.log"
    remark=$(sed -n 's/^communication *//p' "$work/shared-profile.log" | head -n 1)
    [ -n "$remark" ]
}

# Pieces from GPU memory and to it, where UCX knows CUDA.
shared_direct() {
    export MPIZERO_GPU_DIRECT=1
    if ! share direct-collectives 2 tests/comm/collectives.np2 cuda; then
        unset MPIZERO_GPU_DIRECT
        ! grep -q 'finds no CUDA here' "$work/direct-collectives.log" || return 77
        return 1
    fi
    share direct-collectives-4 4 tests/comm/collectives.np4 cuda && share direct-quantized 4 tests/comm/quantized.np4 cuda 1 &&
        RANKS=2 STAGE=3 LIMIT_S=90 train direct cuda 20 fp32 --ranks-per-node 1 --timeout 40
    local status=$?
    unset MPIZERO_GPU_DIRECT
    [ $status = 0 ] && same_values 1e-5 "$work/cuda-fp32.loss" "$work/direct.loss" "losses with pieces in GPU memory"
    return $status
}

# shared_stages NODES PRECISION TOLERANCE STAGE...: beside one rank alone, and the last stage twice with the same bits.
shared_stages() {
    local n=$1 precision=$2 tolerance=$3 stage name
    shift 3
    for stage in "$@"; do
        name=shared-$n-$precision-$stage
        RANKS=$n STAGE=$stage LIMIT_S=90 train "$name" cuda 20 "$precision" --ranks-per-node 1 --timeout 40 || return 1
        same_values "$tolerance" "$work/cuda-$precision.loss" "$work/$name.loss" "losses in stage $stage on $n nodes"
    done
    RANKS=$n STAGE=$stage LIMIT_S=90 train "$name-again" cuda 20 "$precision" --ranks-per-node 1 --timeout 40 || return 1
    cmp "$work/$name-again.loss" "$work/$name.loss" && cmp "$work/$name-again.norm" "$work/$name.norm"
}

# A checkpoint of 2 nodes goes on on 4, in another stage, and on one rank.
shared_resume() {
    local n flags=(--ranks-per-node 1 --timeout 40)
    export LIMIT_S=90
    RANKS=2 STAGE=3 train shared-first cuda 20 fp32 --save-steps 10 "${flags[@]}" || return 1
    tail -n 10 "$work/shared-first.loss" >"$work/want"
    for n in 4 1; do
        RANKS=$n STAGE=1 train "shared-resumed-$n" cuda 20 fp32 --resume "$work/shared-first/checkpoints/step-000010" \
            "${flags[@]}" || return 1
        same_values 1e-4 "$work/want" "$work/shared-resumed-$n.loss" "losses after resuming on $n nodes"
    done
    unset LIMIT_S
}

# A rank that is late, gone or elsewhere is named on all nodes.
shared_faults() {
    PROBE=tests/comm/gpu_probe CUTS=1 MPIRUN_FLAGS='--oversubscribe --bind-to none' builddir=$build \
        "$srcdir/tests/comm/relay_failures.sh"
}

# A rank whose GPU has failed says so to the others, and they end.
shared_gpu_fault() {
    local begin=$SECONDS
    timeout 60 mpirun --enable-recovery --oversubscribe --bind-to none -n 2 tests/comm/gpu_probe fault 1 \
        >"$work/shared-fault.log" 2>&1
    grep '^rank' "$work/shared-fault.log"
    [ $((SECONDS - begin)) -le 30 ] || fail "took $((SECONDS - begin)) s"
    grep -q '^rank 0 .*rank 1' "$work/shared-fault.log" || { fail "rank 0 did not name rank 1"; tail "$work/shared-fault.log"; }
}

on_shared() {
    export MPIZERO_SHARE_GPU=1
    watch_standing &
    local watcher=$!
    check "beside a stream that waits" beside_awaits
    check "CPU streams as 2 nodes of 2" shared_doubles
    check "collectives, 2 nodes on one GPU" shared_collectives 2
    check "collectives, 4 nodes on one GPU" shared_collectives 4
    check "2 nodes beside CPUs" shared_nodes 2
    check "4 nodes beside CPUs" shared_nodes 4
    [ -f "$work/cuda-bf16.loss" ] || check "training on one GPU" on_one_gpu
    check "stages 0 to 3, 2 nodes, fp32" shared_stages 2 fp32 1e-5 0 1 2 3
    check "stages 0 to 3, 2 nodes, bf16" shared_stages 2 bf16 2e-2 0 1 2 3
    check "stages 1 and 3, 4 nodes, fp32" shared_stages 4 fp32 1e-5 1 3
    check "pieces in GPU memory" shared_direct
    check "a profiled step of 2 nodes" shared_profile
    check "fewer bits between 4 nodes" share quantized 4 tests/comm/quantized.np4 cuda 1
    check "stage 3 with fewer bits, 2 nodes" shared_quantized
    check "a checkpoint of 2 nodes on 4 and 1" shared_resume
    check "faults are named on all nodes" shared_faults
    check "a node's failing GPU is named" shared_gpu_fault
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null
    unset MPIZERO_SHARE_GPU
}
