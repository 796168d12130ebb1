#include "comm/launch.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

/* Slurm numbers its own steps (batch script, external, interactive shell) from here. */
enum { SLURM_FIRST_SPECIAL_STEP = 0xfffffff0u };

/* A variable that holds a whole non-negative number, else -1. */
static long env_number(const char *name)
{
    const char *text = getenv(name);
    if (!text || !*text)
        return -1;
    char *end;
    long value = strtol(text, &end, 10);
    return *end || value < 0 ? -1 : value;
}

static bool has_any(const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (getenv(names[i]))
            return true;
    return false;
}

/* Tasks of the Slurm step that runs this very process; -1 when none does. SLURM_NTASKS alone says nothing: it is
 * also set in an allocation's shell and batch script, where one process is what was asked for. */
static long slurm_step_tasks(void)
{
    if (env_number("SLURM_PROCID") < 0 || env_number("SLURM_STEP_ID") >= SLURM_FIRST_SPECIAL_STEP)
        return -1;
    return env_number("SLURM_STEP_NUM_TASKS");
}

/* This process's command line with spaces between the words, shortened. */
static void command_line(char *text, size_t bytes)
{
    size_t n = 0;
    FILE *file = fopen("/proc/self/cmdline", "r");
    if (file) {
        n = fread(text, 1, bytes - 1, file);
        fclose(file);
    }
    while (n && !text[n - 1])
        n--;
    for (size_t i = 0; i < n; i++)
        if (!text[i])
            text[i] = ' ';
    text[n] = '\0';
    if (!n)
        snprintf(text, bytes, "PROGRAM ...");
    else if (n == bytes - 1)
        memcpy(text + n - 3, "...", 3);
}

/* First line of MPI's description of itself: "Open MPI v4.1.4, package: ...". */
static void mpi_name(char text[MPI_MAX_LIBRARY_VERSION_STRING])
{
    int length = 0;
    text[0] = '\0';
    MPI_Get_library_version(text, &length);
    text[strcspn(text, "\n,(")] = '\0';
}

static mz_status refuse_slurm(long tasks, const char *found)
{
    char command[512], library[MPI_MAX_LIBRARY_VERSION_STRING];
    command_line(command, sizeof command);
    mpi_name(library);
    return mz_fail(MZ_ERR_LAUNCH,
                   "srun started %ld tasks, but %s: each would train alone. Start them so that MPI finds the "
                   "others:\n    srun --mpi=pmix -n %ld %s\nor, inside the allocation,\n    mpirun -n %ld %s\n"
                   "('srun --mpi=list' shows what this Slurm offers; the program was built with %s. For one rank "
                   "on purpose: srun -n 1.)",
                   tasks, found, tasks, command, tasks, command, library);
}

mz_status mz_launch_check_early(void)
{
    static const char *const ways[] = {"PMIX_RANK", "PMIX_NAMESPACE", "PMI_RANK",    "PMI_FD",
                                       "PMI_ID",    "PMI_SIZE",       "PALS_RANKID", "OMPI_COMM_WORLD_SIZE"};
    long tasks = slurm_step_tasks();
    if (tasks <= 1 || has_any(ways, sizeof ways / sizeof ways[0]))
        return MZ_OK;
    return refuse_slurm(tasks, "gave them no way to find each other (no PMIx and no PMI)");
}

mz_status mz_launch_check(int rank, int size)
{
    /* mpirun inside a Slurm step leaves Slurm's variables standing, with the numbers of its own daemons, so
     * that MPI's launchers are asked first. */
    static const struct {
        const char *size, *rank, *launcher;
    } launchers[] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "Open MPI's mpirun"},
                     {"PMI_SIZE", "PMI_RANK", "a PMI launcher (mpiexec, srun --mpi=pmi2)"}};
    char command[512], library[MPI_MAX_LIBRARY_VERSION_STRING], found[96];
    for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++) {
        long expected = env_number(launchers[i].size);
        if (expected < 0)
            continue;
        if (expected <= size)
            return MZ_OK;
        command_line(command, sizeof command);
        mpi_name(library);
        return mz_fail(MZ_ERR_LAUNCH,
                       "%s started %ld processes (%s), but MPI knows %d: each would train alone. The launcher "
                       "belongs to another MPI than the program, which was built with %s. Use that one's own:\n"
                       "    mpirun -n %ld %s",
                       launchers[i].launcher, expected, launchers[i].size, size, library, expected, command);
    }
    snprintf(found, sizeof found, "MPI knows %d rank%s", size, size == 1 ? "" : "s");
    if (slurm_step_tasks() > size)
        return refuse_slurm(slurm_step_tasks(), found);
    if (size == 1 && rank == 0 && env_number("PMIX_RANK") > 0) {
        command_line(command, sizeof command);
        mpi_name(library);
        return mz_fail(MZ_ERR_LAUNCH,
                       "the launcher calls this process rank %ld (PMIX_RANK), but MPI knows 1 rank: the program "
                       "was built with %s, which does not understand the launcher. Use that one's own:\n"
                       "    mpirun -n RANKS %s",
                       env_number("PMIX_RANK"), library, command);
    }
    return MZ_OK;
}
