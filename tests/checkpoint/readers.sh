# Other programs read our files: h5py, safetensors, transformers. Skipped without them; PYTHON names the interpreter.
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "skipped: no $python"; exit 77; }
out=$(mktemp -d "${TMPDIR:-/tmp}/mpizero-readers-XXXXXX") || exit 1
trap 'rm -rf "$out"' EXIT
model=$srcdir/../shared/data/tiny_gpt2
[ -d "$model" ] || { echo "no model folder $model: transformers is not asked"; model=; }
"$builddir/tests/checkpoint/write_samples" "$out" $model || exit 1
HF_HUB_OFFLINE=1 "$python" "$srcdir/tests/checkpoint/read_samples.py" "$out" $model
