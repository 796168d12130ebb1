#!/usr/bin/env python3
"""Whether mpizero's bf16 training follows PyTorch's.

    tests/gpu/curve.py build/mpizero TEXT [--device cuda] [--steps 200] [--out curves.tsv]

A GPT-2 is trained on bytes of TEXT in order, without dropout: by PyTorch (transformers' model, bf16 autocast over
fp32 weights, AdamW) from weights of seed 1 and of seed 2, and by mpizero in bf16 from the weights of seed 1. All see
the same batches. How far the two PyTorch curves lie apart is what the draw of the weights makes of the same training;
mpizero, which starts from the first's, has to stay nearer to it than that: in the mean over all steps, and in the mean
over each tenth of them. PyTorch's own fp32 curve from seed 1 is beside it, for what rounding to bf16 alone does. Prints
one line; exit code 1 when mpizero is farther away, 77 where torch or transformers is missing.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

sys.path = [p for p in sys.path if p != os.path.dirname(os.path.abspath(__file__))]  # profile.py is not Python's own
try:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("mpizero")
arguments.add_argument("text")
arguments.add_argument("--device", default="cuda")
arguments.add_argument("--steps", type=int, default=200)
arguments.add_argument("--layers", type=int, default=6)
arguments.add_argument("--embd", type=int, default=384)
arguments.add_argument("--heads", type=int, default=6)
arguments.add_argument("--tokens", type=int, default=256)
arguments.add_argument("--batch", type=int, default=16)
arguments.add_argument("--lr", type=float, default=1e-3)
arguments.add_argument("--out", help="the curves, as tab-separated columns")
options = arguments.parse_args()


def new_model(seed):
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=264, n_positions=options.tokens, n_embd=options.embd, n_layer=options.layers,
        n_head=options.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        bos_token_id=256, eos_token_id=256))
    return model


def batches():
    data = open(options.text, "rb").read()
    size = options.batch * options.tokens
    if len(data) < options.steps * size:
        sys.exit(f"{options.text}: {len(data)} bytes, {options.steps} steps need {options.steps * size}")
    for step in range(options.steps):
        yield torch.tensor(list(data[step * size:(step + 1) * size])).view(options.batch, options.tokens)


def torch_curve(model, bf16):
    """mpizero's defaults: AdamW, no decay of biases, gradients clipped to a norm of 1."""
    model = model.to(options.device).train()
    groups = [{"params": [p for n, p in model.named_parameters() if "bias" not in n], "weight_decay": 0.1},
              {"params": [p for n, p in model.named_parameters() if "bias" in n], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for ids in batches():
        ids = ids.to(options.device)
        with torch.autocast(options.device, torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return torch.stack(losses).float().tolist()


def mpizero_curve(folder, work):
    with open(f"{work}/deepspeed.json", "w") as f:
        json.dump({"train_batch_size": options.batch, "train_micro_batch_size_per_gpu": options.batch,
                   "bf16": {"enabled": True}, "gradient_clipping": 1.0, "zero_optimization": {"stage": 0},
                   "optimizer": {"type": "AdamW", "params": {"lr": options.lr, "betas": [0.9, 0.95], "eps": 1e-8,
                                                             "weight_decay": 0.1}}}, f)
    os.symlink(os.path.abspath(options.text), f"{work}/text")
    run = subprocess.run([options.mpizero, "train", "--device", options.device, "--model", folder, "--tokenizer",
                          "byte", "--train-data", f"{work}/text", "--no-shuffle", "--block-size", str(options.tokens),
                          "--deepspeed", f"{work}/deepspeed.json", "--max-steps", str(options.steps),
                          "--no-save-weights", "--save-steps", "0", "--output-dir", f"{work}/run"],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        sys.exit(f"mpizero ended with {run.returncode}:\n{run.stdout[-2000:]}")
    with open(f"{work}/run/metrics.jsonl") as f:
        return [json.loads(line)["loss"] for line in f if '"loss"' in line]


def distance(a, b):
    return sum(abs(x - y) for x, y in zip(a, b)) / len(a)


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    with tempfile.TemporaryDirectory() as work:
        first = new_model(1)
        first.save_pretrained(f"{work}/model")
        ours = mpizero_curve(f"{work}/model", work)
        curves = {"mpizero": ours, "torch_1": torch_curve(first, True), "torch_2": torch_curve(new_model(2), True),
                  "torch_1_fp32": torch_curve(new_model(1), False)}
    if options.out:
        with open(options.out, "w") as f:
            print("step", *curves, sep="\t", file=f)
            for step, row in enumerate(zip(*curves.values()), 1):
                print(step, *(f"{loss:.6f}" for loss in row), sep="\t", file=f)
    one, two, fp32 = curves["torch_1"], curves["torch_2"], curves["torch_1_fp32"]
    if len(ours) != options.steps:
        sys.exit(f"{len(ours)} losses of {options.steps} steps")
    tenth = max(options.steps // 10, 1)
    parts = [slice(i, i + tenth) for i in range(0, options.steps, tenth)]
    outside = [p for p in parts if not distance(ours[p], one[p]) <= distance(two[p], one[p])]
    inside = distance(ours, one) <= distance(two, one) and not outside
    print(f"loss {ours[0]:.4f} to {sum(ours[-tenth:]) / tenth:.4f}, PyTorch's {sum(one[-tenth:]) / tenth:.4f}; mean "
          f"distance from it {distance(ours, one):.2e} (at most {max(abs(a - b) for a, b in zip(ours, one)):.2e}), of "
          f"another seed {distance(two, one):.2e}, of PyTorch in fp32 {distance(fp32, one):.2e}"
          + "".join(f"; outside in steps {p.start + 1} to {p.stop}" for p in outside))
    return 0 if inside else 1


sys.exit(main())
