/* mpizero: MPI-native training with ZeRO. This header is the whole public interface. */
#ifndef MPIZERO_H
#define MPIZERO_H

#include "mpizero/config.h"
#include "mpizero/dtype.h"
#include "mpizero/engine.h"
#include "mpizero/model.h"
#include "mpizero/nn.h"
#include "mpizero/status.h"
#include "mpizero/tensor.h"

#endif
