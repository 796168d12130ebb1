#!/usr/bin/env python3
"""Writes schedules.json: what DeepSpeed's own schedulers and loss scaler do, step by step.

Needs torch and deepspeed (0.19.8 made the file in the tree):
    DS_ACCELERATOR=cpu DS_BUILD_OPS=0 python3 make_schedules.py > schedules.json
"""
import json
import random
import sys
import types

import deepspeed
import torch
from deepspeed.runtime import lr_schedules
from deepspeed.runtime.fp16 import loss_scaler

BASE_LR = 3e-4
STEPS = 60

SCHEDULES = [
    ("WarmupLR", {}),
    ("WarmupLR", {"warmup_num_steps": 10}),
    ("WarmupLR", {"warmup_num_steps": 1}),
    ("WarmupLR", {"warmup_num_steps": 7, "warmup_min_lr": 1e-5, "warmup_max_lr": 2e-3, "warmup_type": "linear"}),
    ("WarmupLR", {"warmup_num_steps": 12, "last_batch_iteration": 5}),
    ("WarmupDecayLR", {"total_num_steps": 50, "warmup_num_steps": 10}),
    ("WarmupDecayLR", {"total_num_steps": 40, "warmup_num_steps": 10, "warmup_max_lr": 1e-3, "warmup_min_lr": 1e-4,
                       "warmup_type": "linear"}),
    ("WarmupDecayLR", {"total_num_steps": 5, "warmup_num_steps": 20}),
    ("WarmupCosineLR", {"total_num_steps": 50, "warmup_num_steps": 10}),
    ("WarmupCosineLR", {"total_num_steps": 30, "warmup_num_steps": 8, "warmup_min_ratio": 0.1, "cos_min_ratio": 0.05,
                        "warmup_type": "linear"}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-3, "cycle_first_step_size": 10}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-3, "cycle_first_step_size": 10,
                  "cycle_second_step_size": 17, "decay_step_size": 5, "decay_lr_rate": 0.5, "decay_mom_rate": 0.01}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-3, "cycle_first_step_size": 12,
                  "cycle_second_step_size": 15, "cycle_first_stair_count": 4, "cycle_second_stair_count": 5,
                  "cycle_min_mom": 0.85, "cycle_max_mom": 0.99}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-3, "cycle_first_step_size": 9,
                  "cycle_first_stair_count": 3, "cycle_momentum": False}),
    ("LRRangeTest", {}),
    ("LRRangeTest", {"lr_range_test_min_lr": 1e-4, "lr_range_test_step_size": 7, "lr_range_test_step_rate": 2.5}),
    ("LRRangeTest", {"lr_range_test_min_lr": 1e-4, "lr_range_test_step_size": 7, "lr_range_test_step_rate": 2.5,
                     "lr_range_test_staircase": True}),
]


def run_schedule(kind, params):
    """The rate and beta1 that each optimiser step is taken with."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=BASE_LR, betas=(0.9, 0.999))
    scheduler = getattr(lr_schedules, kind)(optimizer, **params)
    lrs, momenta = [], []
    for _ in range(STEPS):
        group = optimizer.param_groups[0]
        lrs.append(float(group["lr"]))
        momenta.append(float(group["betas"][0]))
        optimizer.step()
        scheduler.step()
    return {"type": kind, "params": params, "lr": lrs, "momentum": momenta}


def run_scaler(name, overflows, **settings):
    """The scale after each step; null once it has given up."""
    fp16 = {"initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2, "consecutive_hysteresis": False,
            "min_loss_scale": 1}
    fp16.update(settings)
    scaler = loss_scaler.DynamicLossScaler(init_scale=2.0 ** fp16["initial_scale_power"],
                                           scale_window=fp16["loss_scale_window"],
                                           min_scale=fp16["min_loss_scale"], delayed_shift=fp16["hysteresis"],
                                           consecutive_hysteresis=fp16["consecutive_hysteresis"])
    scales = []
    for overflow in overflows:
        try:
            scaler.update_scale(bool(overflow))
        except Exception:
            scales.append(None)
            break
        scales.append(scaler.loss_scale)
    return {"name": name, "fp16": fp16, "overflow": "".join("X" if o else "." for o in overflows), "scale": scales}


def scaler_runs():
    draw = random.Random(7)
    noise = [draw.random() < 0.2 for _ in range(200)]
    yield run_scaler("first doubling", [False] * 1003)
    yield run_scaler("window of three", [False] * 20, loss_scale_window=3)
    yield run_scaler("hysteresis of two", [True, True, True, False, True], hysteresis=2)
    yield run_scaler("hysteresis of one", [True, True, False, True], hysteresis=1)
    yield run_scaler("refilled by clean steps", [True, False, True, False, True, True], consecutive_hysteresis=True)
    yield run_scaler("down to the minimum", [True] * 12, initial_scale_power=3, min_loss_scale=2)
    yield run_scaler("window refills", [True, False, False, False, True, True], loss_scale_window=2)
    for hysteresis in (1, 2, 4):
        for consecutive in (False, True):
            yield run_scaler("noise", noise, initial_scale_power=60, loss_scale_window=4, hysteresis=hysteresis,
                             consecutive_hysteresis=consecutive)


def main():
    loss_scaler.dist = types.SimpleNamespace(get_rank=lambda: 0)
    deepspeed.utils.logger.setLevel("ERROR")
    result = {"deepspeed": deepspeed.__version__.strip(), "base_lr": BASE_LR,
              "schedules": [run_schedule(kind, params) for kind, params in SCHEDULES],
              "scalers": list(scaler_runs())}
    json.dump(result, sys.stdout, separators=(",", ":"))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
