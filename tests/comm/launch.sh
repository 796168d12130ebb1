#!/bin/bash
# A launch that would give N lonely copies is refused with the command that is right; others pass.
probe=${builddir:-.}/tests/comm/launch_probe
clean=(env)
for name in $(compgen -e | grep -E '^(SLURM_|OMPI_|PMI_|PMIX_|PALS_)'); do
    clean+=(-u "$name")
done
clean+=(OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1)
failures=0

# expect STATUS TEXT VARIABLE=VALUE...
expect()
{
    local status=$1 text=$2 output
    shift 2
    output=$("${clean[@]}" "$@" timeout 60 "$probe" 2>&1)
    local got=$?
    if [ $got -ne "$status" ] || ! grep -qF -- "$text" <<<"$output"; then
        echo "with $*: expected status $status and \"$text\", found status $got and: $output"
        failures=$((failures + 1))
    fi
}

expect 0 "rank 0 of 1"
# Slurm, by srun: a step of four tasks.
expect 7 "srun --mpi=pmix -n 4 $probe" SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_NTASKS=4
expect 0 "rank 0 of 1" SLURM_PROCID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=4
# In an allocation without srun: the shell, the batch script, an interactive step.
expect 0 "rank 0 of 1" SLURM_JOB_ID=7 SLURM_NTASKS=4
expect 0 "rank 0 of 1" SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_PROCID=0
expect 0 "rank 0 of 1" SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=4
# Another MPI's launcher.
expect 7 "mpirun -n 4 $probe" PMI_SIZE=4 PMI_RANK=2
expect 7 "started 2 processes (OMPI_COMM_WORLD_SIZE), but MPI knows 1" OMPI_COMM_WORLD_SIZE=2
# mpirun inside a step of daemons: its own numbers count.
expect 0 "rank 0 of 1" OMPI_COMM_WORLD_SIZE=1 SLURM_PROCID=0 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2
exit $((failures > 0))
