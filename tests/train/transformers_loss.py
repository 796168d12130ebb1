"""Mean next-token loss of a weights folder over a text's blocks of bytes, by transformers.

usage: transformers_loss.py FOLDER TEXT BLOCK_SIZE
Prints the loss in fp32 arithmetic. Exit code 77 when torch or transformers is not installed.
"""
import sys

try:
    import torch
    from transformers import AutoModelForCausalLM
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

folder, text, block = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
data = open(text, "rb").read()
n = len(data) // block
ids = torch.tensor(list(data[: n * block])).view(n, block)
total = 0.0
with torch.no_grad():
    for rows in ids.split(64):
        total += model(rows, labels=rows).loss.double().item() * len(rows)
print(f"{total / n:.9f}")
