# One rank of several is killed while they save: the job ends, a whole checkpoint is there, and another number of ranks goes
# on from it. ROUNDS in the environment makes it longer.
[ -n "$MPIRUN" ] || { echo "skipped: no mpirun"; exit 77; }
program=$builddir/tests/checkpoint/save_or_check
out=$(mktemp -d "${TMPDIR:-/tmp}/mpizero-ranks-XXXXXX") || exit 1
trap 'rm -rf "$out"' EXIT
RANDOM=7
last=0
for ((round = 0; round < ${ROUNDS:-6}; round++)); do
    ranks=$((2 + round % 2))
    rm -f "$out"/pid.*
    "$MPIRUN" $MPIRUN_FLAGS -n $ranks "$program" save "$out" >"$out/log" 2>&1 &
    job=$!
    for ((wait = 0; wait < 600; wait++)); do # all ranks run, and the first checkpoint is there
        [ -f "$out/pid.$((ranks - 1))" ] && [ -f "$out/pid.0" ] && [ -f "$out/checkpoints/latest" ] && break
        kill -0 $job 2>/dev/null || { cat "$out/log"; exit 1; }
        sleep 0.05
    done
    sleep "0.$(printf %03d $((RANDOM % 300)))"
    kill -KILL "$(cat "$out/pid.$((RANDOM % ranks))")" || exit 1
    wait $job && { echo "round $round: the job did not notice"; exit 1; }
    step=$("$program" check "$out") || exit 1
    [ "$step" -ge "$last" ] || { echo "round $round: step $step after $last"; exit 1; }
    echo "round $round: a rank of $ranks killed, step $step is whole"
    last=$step
done
