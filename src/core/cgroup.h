/* Limits that the control group of this process sets, version 2 or 1. */
#ifndef MZ_CORE_CGROUP_H
#define MZ_CORE_CGROUP_H

/* Smallest memory limit in bytes on the way from this process's group to the root; 0 when there is none. */
double mz_cgroup_memory_limit(void);

/* Smallest CPU quota in cores, likewise; 0 when there is none. */
double mz_cgroup_cpu_limit(void);

#endif
