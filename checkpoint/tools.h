/* What the commands `consolidate` and `inspect` do, apart from their flags. */
#ifndef MZ_CHECKPOINT_TOOLS_H
#define MZ_CHECKPOINT_TOOLS_H

#include <jansson.h>

#include "comm/comm.h"
#include "mpizero/dtype.h"

typedef struct mz_consolidate_options {
    const char *checkpoint;       /* a step's folder, a run's folder, .../checkpoints/latest */
    const char *output;           /* the weights folder; made when it is not there */
    mz_dtype dtype;               /* MZ_BF16, MZ_F16 or MZ_F32 */
    int64_t max_file_bytes;       /* 0: 5 GB */
    const char *tokenizer_folder; /* its tokenizer files are copied; NULL: none */
    size_t buffer_bytes;          /* held per rank; 0: 64 MiB */
} mz_consolidate_options;

typedef struct mz_consolidate_facts {
    int64_t step, n_parameters, bytes_written; /* of all ranks */
    int n_tensors;
} mz_consolidate_facts;

/* A sharded checkpoint becomes a Hugging Face folder: safetensors, and config.json when the checkpoint knows its
 * model. Collective over world; NULL: this process alone, without MPI. Tensors stream through the buffer: no rank
 * holds one whole, and every block read is checked against its CRC. Non-finite values after conversion to fp16 are
 * refused: the message names the tensor. Errors: MZ_ERR_CHECKPOINT, MZ_ERR_IO, MZ_ERR_NONFINITE. */
mz_status mz_consolidate(mz_world *world, const mz_consolidate_options *options, mz_consolidate_facts *facts);

/* What a checkpoint (step's folder, run's folder, latest) or a weights folder (or .safetensors file) holds. Local.
 * verify: reads everything of a checkpoint and checks all CRCs. *facts: a JSON object, a reference for the caller,
 * set on failure too when the path is a checkpoint or weights: kind "checkpoint" | "weights", path, whole,
 * verified, problem (null or a text), n_tensors, n_parameters, bytes, tensors [{name, shape, numel, dtype, kinds}],
 * and of a checkpoint step, world_size, kinds, files
 *   [{name, bytes}], state. */
mz_status mz_inspect(const char *path, bool verify, json_t **facts);
/* The same for people; owned by the caller, NULL when there is no memory. */
char *mz_inspect_text(const json_t *facts);

#endif
