#!/usr/bin/env python3
"""PyTorch's attention at the shapes of bench_attention: flash and cuDNN, causal, bf16, tensors packed as GPT-2 has them."""
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [("GPT-2 124M", 32, 12, 1024, 64), ("GPT-2 XL", 16, 25, 1024, 64),
          ("heads of 128", 16, 16, 1024, 128), ("4096 tokens", 8, 12, 4096, 64)]


def milliseconds(work, repeats=30):
    times = []
    for r in range(repeats + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        if r >= 3:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def main():
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    for name, batch, heads, context, size in SHAPES:
        width = heads * size
        qkv = torch.rand(batch, context, 3 * width, device="cuda", dtype=torch.bfloat16) * 2 - 1
        q, k, v = (x.view(batch, context, heads, size).transpose(1, 2).detach().requires_grad_()
                   for x in qkv.split(width, dim=2))
        flops = 2.0 * batch * context * width * context
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            with sdpa_kernel(backend):
                def forward():
                    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

                o = forward()
                d_o = torch.rand_like(o)
                t_forward = milliseconds(forward)
                t_backward = milliseconds(lambda: torch.autograd.grad(o, (q, k, v), d_o, retain_graph=True))
            print(f"{name:14s} {backend.name:16s} forward {t_forward:7.3f} ms {1e-9 * flops / t_forward:6.1f} TFLOP/s   "
                  f"backward {t_backward:7.3f} ms {2.5e-9 * flops / t_backward:6.1f} TFLOP/s")


if __name__ == "__main__":
    main()
