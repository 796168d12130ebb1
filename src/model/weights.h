/* How a weights file may name what a model calls otherwise. */
#ifndef MZ_MODEL_WEIGHTS_H
#define MZ_MODEL_WEIGHTS_H

#include "mpizero/model.h"

#define MZ_MAX_WEIGHT_ALIASES 2

/* Names besides `name` under which a weights file may hold this parameter, best first; returns their number.
 * Borrowed: they live as long as `name`. */
int mz_model_weight_aliases(const mz_model *model, const char *name, const char *aliases[MZ_MAX_WEIGHT_ALIASES]);

/* Whether a tensor in a weights file that is no parameter of the model is known and left out on purpose: buffers
 * that older versions saved, the second copy of a tied weight. Others deserve a warning. */
bool mz_model_weight_ignored(const mz_model *model, const char *file_name);

#endif
