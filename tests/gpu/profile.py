#!/usr/bin/env python3
"""Where the time of a training step goes on a GPU, kernel by kernel.

    tests/gpu/profile.py build/mpizero [--layers N] [--embd N] [--heads N] [--batch N] [--top N] [-- FLAG...]

Runs a few steps of a GPT-2 of that size with kernel_times.c in it, which has CUDA's profiling library note when each
kernel began and ended, and adds up those of the last step.
"""
import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("mpizero")
arguments.add_argument("--layers", type=int, default=12)
arguments.add_argument("--embd", type=int, default=768)
arguments.add_argument("--heads", type=int, default=12)
arguments.add_argument("--batch", type=int, default=32)
arguments.add_argument("--tokens", type=int, default=1024)
arguments.add_argument("--steps", type=int, default=3)
arguments.add_argument("--top", type=int, default=40, help="rows of the table")
arguments.epilog = "Flags behind -- are handed to mpizero train."
end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
options = arguments.parse_args(sys.argv[1:end])
flags = sys.argv[end + 1:]


def prepare(work):
    with open(f"{work}/config.json", "w") as f:
        json.dump({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50257,
                   "n_positions": options.tokens, "n_embd": options.embd, "n_layer": options.layers,
                   "n_head": options.heads, "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0,
                   "attn_pdrop": 0.0, "bos_token_id": 50256, "eos_token_id": 50256}, f)
    with open(f"{work}/deepspeed.json", "w") as f:
        json.dump({"train_batch_size": options.batch, "train_micro_batch_size_per_gpu": options.batch,
                   "bf16": {"enabled": True}, "zero_optimization": {"stage": 0},
                   "optimizer": {"type": "AdamW", "params": {"lr": 3e-4, "weight_decay": 0.1}}}, f)
    with open(f"{work}/text", "w") as f:
        for i in range(4 * options.batch * options.tokens // 8):
            f.write(f"{i * 7919 % 1000003:7d} ")


def build(work):
    """The library that the driver loads into the program."""
    home = next((f for f in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda") if f), None)
    folders = [f"{home}/{part}" for part in ("include", "extras/CUPTI/include")]
    libraries = [f"{home}/{part}" for part in ("lib64", "lib", "extras/CUPTI/lib64")]
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernel_times.c")
    library = f"{work}/kernel_times.so"
    subprocess.run(["cc", "-std=c11", "-shared", "-fPIC", "-o", library, source, *(f"-I{f}" for f in folders),
                    *(f"-L{f}" for f in libraries), *(f"-Wl,-rpath,{f}" for f in libraries), "-lcupti"], check=True)
    return library


def measure(work):
    command = [options.mpizero, "train", "--device", "cuda", "--model", work, "--tokenizer", "byte",
               "--train-data", f"{work}/text", "--block-size", str(options.tokens),
               "--deepspeed", f"{work}/deepspeed.json", "--max-steps", str(options.steps), "--no-save-weights",
               "--save-steps", "0", "--output-dir", f"{work}/out", *flags]
    environment = {**os.environ, "CUDA_INJECTION64_PATH": build(work), "KERNEL_TIMES": f"{work}/times"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    names = subprocess.run(["c++filt"], stdin=open(f"{work}/times"), stdout=subprocess.PIPE, text=True, check=True)
    return names.stdout


def kernels(text):
    """(name, begin, end) of every kernel, copy and fill, in order of time."""
    calls = []
    for line in text.splitlines():
        begin, end, name = line.split(" ", 2)
        calls.append((name, int(begin), int(end)))
    return sorted(calls, key=lambda call: call[1])


def last_step(calls):
    """From behind the last but one step's update to the end of the last one's."""
    updates = [i for i, call in enumerate(calls) if "optim" in call[0]]
    ends = [i for i, j in zip(updates, updates[1:] + [len(calls)]) if not j - i < 20]
    return calls[ends[-2] + 1:ends[-1] + 1]


def idle(calls):
    """Nanoseconds in which nothing ran, and how many of them lie in gaps of 20 us or more."""
    reached, gaps = calls[0][1], []
    for _, begin, end in calls:
        gaps.append(max(0, begin - reached))
        reached = max(reached, end)
    return sum(gaps), sum(gap for gap in gaps if gap >= 20000)


def short(name):
    """Without the return type and the arguments."""
    depth = 0
    for end, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            name = name[:end]
            break
    name = re.sub(r"\((?:int|bool|unsigned int)\)", "", name.removeprefix("void "))
    return name if len(name) < 110 else name[:107] + "..."


work = tempfile.mkdtemp(prefix="mpizero-profile.")
try:
    prepare(work)
    step = last_step(kernels(measure(work)))
finally:
    shutil.rmtree(work)
table = collections.defaultdict(list)
for name, begin, end in step:
    table[short(name)].append(end - begin)
total = sum(sum(times) for times in table.values())
gaps, long_gaps = idle(step)
print(f"{options.layers} layers of {options.embd}, {options.batch} x {options.tokens}: {len(step)} launches, "
      f"{(step[-1][2] - step[0][1]) / 1e6:.2f} ms, busy {total / 1e6:.2f} ms, idle {gaps / 1e6:.2f} ms, of which "
      f"{long_gaps / 1e6:.2f} ms in gaps of 20 us or more")
print(f"{'ms':>9} {'share':>6} {'calls':>6} {'us each':>9}  kernel")
for name, times in sorted(table.items(), key=lambda item: -sum(item[1]))[:options.top]:
    print(f"{sum(times) / 1e6:9.3f} {sum(times) / total:6.1%} {len(times):6d} {sum(times) / len(times) / 1e3:9.1f}  "
          f"{name}")
