#!/usr/bin/env python3
"""Makes tests/data/tiny_bpe: a byte-level BPE of 256 bytes and 120 merges, and texts with the ids that
Hugging Face's tokenizers library gives them. Run it in tests/data; needs the package `tokenizers`."""
import json
import os
from collections import Counter

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

TEXT = """the ranks of a job share the work of a step: each rank keeps a slice of the weights, gathers the rest
when a layer needs it, and gives back the sum of the gradients. they're all waiting for the slowest one, so
don't let one of them wait for the others. the loss is the same on one rank and on many; that's the test of it.
in 2024 there were 1024 of them, in 2025 there were 4096.  a tensor's shape is (batch, sequence, hidden).
""" * 2
N_MERGES = 120
FOLDER = "tiny_bpe"

TEXTS = [
    "", " ", "  ", "\n", "\n\n", "a", " a", "  a", "\t\ta\n", "the ranks share the gradients",
    "They're waiting; don't let 'em. I'll we've I'm you'd it's 'S 'tis", "2024 and 1024,4096",
    "tabs\tand\r\nline ends\n\n\nthree", "trailing   ", "   leading", "a  b   c", "x\u00a0y \u00a0 z\u3000w\u2028v",
    "na\u00efve caf\u00e9 \u2014 \u201cquotes\u201d", "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\U0001f600\U0001f680 ok",
    "e\u0301 combining \u0300", "\u0661\u0662\u0663 \u2160\u00bd", "\x00\x01\x7f\x85 control",
    "the end<|endoftext|>the start", "<|endoftext|>", "<|endoftext|><|endoftext|> x", "<|endof", "the<mask> x",
    "the  <mask>  x", "underscore_name __init__ a_b", "((())) ... !!! ?!", "\u180e mongolian \u180e\u180e",
    "the the the the thethethe", "\u200b zero width \ufeff", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]


def bytes_to_unicode():
    plain = [b for b in range(256) if 0x21 <= b <= 0x7e or (0xa1 <= b and b != 0xad)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def learn(words, n):
    """The classic loop: join the most frequent pair, first in order of text among equals."""
    words = {tuple(w): c for w, c in words.items()}
    merges = []
    for _ in range(n):
        pairs = Counter()
        for w, c in words.items():
            for pair in zip(w, w[1:]):
                pairs[pair] += c
        best = max(sorted(pairs), key=lambda p: pairs[p])
        merges.append(best)
        joined = {}
        for w, c in words.items():
            out, i = [], 0
            while i < len(w):
                if w[i:i + 2] == best:
                    out.append(w[i] + w[i + 1])
                    i += 2
                else:
                    out.append(w[i])
                    i += 1
            joined[tuple(out)] = joined.get(tuple(out), 0) + c
        words = joined
    return merges


def main():
    os.makedirs(FOLDER, exist_ok=True)
    alphabet = bytes_to_unicode()
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = Counter(w for w, _ in cut.pre_tokenize_str(TEXT))
    merges = learn(words, N_MERGES)
    vocab = {alphabet[b]: b for b in range(256)}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    vocab["<|endoftext|>"] = len(vocab)
    mask = len(vocab)
    with open(f"{FOLDER}/vocab.json", "w", encoding="utf-8") as f:
        json.dump(vocab, f, ensure_ascii=False, indent=0)
    with open(f"{FOLDER}/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    with open(f"{FOLDER}/added_tokens.json", "w", encoding="utf-8") as f:
        json.dump({"<mask>": mask}, f)
    with open(f"{FOLDER}/special_tokens_map.json", "w", encoding="utf-8") as f:
        json.dump({"eos_token": "<|endoftext|>"}, f)

    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = cut
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False), AddedToken("<mask>", normalized=False)])
    assert tokenizer.token_to_id("<mask>") == mask
    vectors = [{"input": t, "ids": tokenizer.encode(t).ids} for t in TEXTS]
    with open(f"{FOLDER}/vectors.json", "w", encoding="utf-8") as f:
        json.dump(vectors, f, indent=0)


if __name__ == "__main__":
    main()
