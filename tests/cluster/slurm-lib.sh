# Shared by the tests on Slurm: a cluster of four nodes in a folder of its own, a tiny model, jobs and what became of
# them. Sourced; expects srcdir and builddir as automake gives them.
set -u
srcdir=$(cd "${srcdir:-.}" && pwd)
builddir=$(cd "${builddir:-.}" && pwd)
slurm=$srcdir/tests/cluster/slurm
export CLUSTER OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 MPIZERO=$builddir/mpizero
CLUSTER=$(mktemp -d "${TMPDIR:-/tmp}/mpizero-slurm.XXXXXX")
n_wrong=0
ulimit -c 0

take_down() {
    if [ -n "${KEEP:-}" ]; then
        echo "KEEP: the nodes still run; CLUSTER=$CLUSTER"
    else
        "$slurm" down
    fi
}
trap take_down EXIT
trap 'exit 1' TERM INT

wrong() {
    echo "WRONG: $*"
    n_wrong=$((n_wrong + 1))
}

# start_cluster: four nodes with Slurm, or the end of the test, with 77 where it cannot be.
start_cluster() {
    "$slurm" up 4
    local rc=$?
    [ $rc = 0 ] || exit $rc
    mkdir "$CLUSTER/model"
    cat >"$CLUSTER/model/config.json" <<'JSON'
{"model_type": "gpt2", "vocab_size": 259, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
JSON
    echo '{"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "gradient_clipping": 1.0,
           "zero_optimization": {"stage": 3}}' >"$CLUSTER/zero3.json"
    printf 'some text that is long enough for a few blocks of tokens %.0s' $(seq 200) >"$CLUSTER/text.txt"
}

on_head() { timeout 30 "$slurm" run "$@"; }

# submit ARGS...: sbatch; prints the job's number.
submit() { on_head sbatch --parsable "$@"; }

# fact JOB NAME: a field of "scontrol show job"
fact() { on_head scontrol -o show job "$1" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1; }

# await SECONDS COMMAND...: until the command succeeds
await() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.1
    done
}

# has_ended JOB
has_ended() {
    case $(fact "$1" JobState) in
        COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL | OUT_OF_MEMORY) return 0 ;;
    esac
    return 1
}

# steps_done RUN: the newest step in a run's metrics
steps_done() {
    local step
    step=$(tail -n 1 "$1/metrics.jsonl" 2>/dev/null | sed -n 's/^{"step":\([0-9]*\),.*/\1/p')
    echo "${step:-0}"
}

# has_done RUN STEPS
has_done() { [ "$(steps_done "$1")" -ge "$2" ]; }

losses() { # RUN
    sed -n 's/.*"loss":\([0-9.e+-]*\).*/\1/p' "$1/metrics.jsonl"
}

# saved_step RUN: of the newest whole checkpoint, 0 without one
saved_step() {
    local name
    name=$(cat "$1/checkpoints/latest" 2>/dev/null)
    name=${name#step-}
    echo $((10#${name:-0}))
}

random() { echo $((RANDOM % $1)); }
