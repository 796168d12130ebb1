"""read_samples.py OUT [MODEL]: what other programs find in the files of write_samples: h5py in the checkpoint, safetensors in the
weights, transformers in the model's folder. Exit status 77 when one of the modules is missing."""

import json
import os
import sys

try:
    import h5py
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import load_file
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def crc32c(data, table=[]):
    if not table:
        for byte in range(256):
            for _ in range(8):
                byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
            table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def read_checkpoint(path):
    """{(kind, tensor): array} of one file, its attributes and some of its CRCs checked."""
    pieces, shapes = {}, {}
    with h5py.File(path, "r") as file:
        assert file.attrs["step"][0] == 7 and file.attrs["world_size"][0] == 1
        for kind in file:
            for name in file[kind]:
                for offset in file[kind][name]:
                    data = file[kind][name][offset]
                    values, facts = data[...], data.attrs
                    dtype = facts["dtype"][0]
                    stored = {b"f32": "<f4", b"bf16": "<u2"}
                    assert data.chunks is None and data.dtype == np.dtype(stored[dtype])
                    assert facts["offset"][0] == int(offset) and facts["count"][0] == len(values)
                    if len(values) < 3000:
                        assert list(facts["crc32c"]) == [crc32c(values.tobytes())]
                    if dtype == b"bf16":
                        values = (values.astype("<u4") << 16).view("<f4")
                    shape = facts["shape"]
                    shapes[kind, name] = [] if isinstance(shape, h5py.Empty) else list(shape)
                    pieces.setdefault((kind, name), {})[int(offset)] = values
    return {
        key: np.concatenate([runs[o] for o in sorted(runs)]).reshape(shapes[key]) for key, runs in pieces.items()
    }


def check_weights(out, tensors):
    unescaped = {
        name.replace("%2F", "/").replace("%2E", ".").replace("%25", "%"): values
        for (kind, name), values in tensors.items()
        if kind == "param"
    }
    whole = load_file(os.path.join(out, "f32", "model.safetensors"))
    assert whole.keys() == unescaped.keys(), (whole.keys(), unescaped.keys())
    for name in whole:
        assert np.array_equal(whole[name], unescaped[name]), name
    index = json.load(open(os.path.join(out, "split", "model.safetensors.index.json")))
    assert index["weight_map"].keys() == whole.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    for file in set(index["weight_map"].values()):
        for name, values in load_file(os.path.join(out, "split", file)).items():
            assert index["weight_map"][name] == file and np.array_equal(values, whole[name])
    with safe_open(os.path.join(out, "bf16", "model.safetensors"), framework="numpy") as file:
        assert set(file.keys()) == whole.keys() and file.metadata() == {"format": "pt"}


def check_model(out, model):
    try:
        import torch
        from transformers import AutoModel
    except ImportError as missing:
        print(f"transformers not asked: {missing}")
        return
    ours = AutoModel.from_pretrained(os.path.join(out, "model"), dtype=torch.float32).eval()
    theirs = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    for (name, a), (other, b) in zip(ours.state_dict().items(), theirs.state_dict().items()):
        assert name == other and torch.equal(a, b), name
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    assert torch.equal(ours(tokens).last_hidden_state, theirs(tokens).last_hidden_state)
    print("transformers: the same model")


check_weights(sys.argv[1], read_checkpoint(os.path.join(sys.argv[1], "checkpoints/step-000007/rank-00000.h5")))
if len(sys.argv) > 2:
    check_model(*sys.argv[1:])
print("h5py, safetensors: the same values")
