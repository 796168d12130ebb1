#!/usr/bin/env python3
"""PyTorch's side of the CPU training-step comparison in docs/PERFORMANCE.md.

Times forward, backward and AdamW of the two models that the CPU targets name, on synthetic tokens:
    gpt2   GPT-2 124M, batch 4, context 256
    char   nanoGPT's small character model: 4 layers, 4 heads, 128 wide, context 64, batch 12, and the byte
           tokenizer's vocabulary of 257
No dropout, scaled-dot-product attention, gradients clipped to a norm of 1. Each model is built twice, as
transformers' GPT2LMHeadModel and as a plain module, since neither is always the faster. --optimizer default is
torch.optim.AdamW as a training script calls it, fused its fastest form. bf16 is autocast's mixed precision.

    torch_step.py --model char --threads 2 --mode eager compile --precision bf16

step_ratio.sh runs it in turn with mpizero.
"""
import argparse
import itertools
import json
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

SHAPES = {
    "gpt2": dict(layers=12, heads=12, width=768, context=256, vocab=50257, batch=4),
    "char": dict(layers=4, heads=4, width=128, context=64, vocab=257, batch=12),
}


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (part.view(b, t, self.heads, d // self.heads).transpose(1, 2)
                   for part in self.qkv(self.norm1(x)).split(d, dim=2))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(o.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Plain(nn.Module):
    """A decoder with nothing in it but what the arithmetic needs."""

    def __init__(self, s):
        super().__init__()
        self.token, self.position = nn.Embedding(s["vocab"], s["width"]), nn.Embedding(s["context"], s["width"])
        self.blocks = nn.ModuleList(Block(s["width"], s["heads"]) for _ in range(s["layers"]))
        self.norm = nn.LayerNorm(s["width"])
        self.head = nn.Linear(s["width"], s["vocab"], bias=False)
        self.head.weight = self.token.weight
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids, labels):
        x = self.token(ids) + self.position(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.reshape(-1))


class Transformers(nn.Module):
    def __init__(self, s):
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(vocab_size=s["vocab"], n_positions=s["context"], n_embd=s["width"],
                            n_layer=s["layers"], n_head=s["heads"], resid_pdrop=0.0, embd_pdrop=0.0,
                            attn_pdrop=0.0, use_cache=False, bos_token_id=0, eos_token_id=0)
        config._attn_implementation = "sdpa"
        self.model = GPT2LMHeadModel(config)

    def forward(self, ids, labels):
        return self.model(input_ids=ids, labels=labels).loss


def step_times(build, shape, compiled, precision, optimizer, warmup, steps):
    torch.manual_seed(0)
    model = build(shape)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, **({"fused": True} if optimizer == "fused" else {}))
    run = torch.compile(model) if compiled else model
    times = []
    for i in range(warmup + steps):
        ids = torch.randint(shape["vocab"], (shape["batch"], shape["context"]))
        labels = torch.randint(shape["vocab"], (shape["batch"], shape["context"]))
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = run(ids, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        loss.item()
        if i >= warmup:
            times.append(time.perf_counter() - begin)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--build", nargs="+", choices=["plain", "transformers"], default=["plain", "transformers"])
    parser.add_argument("--mode", nargs="+", choices=["eager", "compile"], default=["eager", "compile"])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--optimizer", nargs="+", choices=["default", "fused"], default=["default", "fused"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="timed steps (10 of gpt2, 200 of char)")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    builds = {"plain": Plain, "transformers": Transformers}
    for name, precision, build, mode, optimizer in itertools.product(args.model, args.precision, args.build, args.mode,
                                                                     args.optimizer):
        shape = SHAPES[name]
        steps = args.steps or (10 if name == "gpt2" else 200)
        times = step_times(builds[build], shape, mode == "compile", precision, optimizer,
                           3 if name == "gpt2" else 20, steps)
        median = statistics.median(times)
        print(json.dumps(dict(model=name, precision=precision, build=build, mode=mode, optimizer=optimizer,
                              threads=args.threads, torch=torch.__version__, step_seconds=round(median, 6),
                              best_step_seconds=round(min(times), 6),
                              tokens_per_second=round(shape["batch"] * shape["context"] / median, 1))), flush=True)


if __name__ == "__main__":
    main()
