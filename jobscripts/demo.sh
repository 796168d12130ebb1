#!/usr/bin/env bash
# The main job, small: trains a GPT-2 on real text over two ranks with ZeRO-2, stops half-way, goes on with one rank
# at ZeRO stage 3, writes 16-bit weights as a Hugging Face folder and generates from them. Some minutes on two cores.
#   jobscripts/demo.sh [MPIZERO [FOLDER]]
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
mpizero=${1:-$top/build/mpizero}
out=${2:-$(mktemp -d "${TMPDIR:-/tmp}/mpizero-demo.XXXXXX")}
mpirun=(mpirun --oversubscribe)
[ "$(id -u)" != 0 ] || mpirun+=(--allow-run-as-root)
mkdir -p "$out"

# Text that every machine has: the licences that Debian and Ubuntu install, and this project's own pages.
shopt -s nullglob
texts=()
for f in /usr/share/common-licenses/* "$top"/LICENSE "$top"/*.md "$top"/docs/*.md; do
    [ -L "$f" ] || texts+=("$f")
done
cat "${texts[@]}" >"$out/text.txt"
echo "== text: ${#texts[@]} files, $(wc -c <"$out/text.txt") bytes, in $out/text.txt"

train=("$mpizero" train --model "$top/examples/gpt2-demo" --tokenizer byte
    --train-data "$out/text.txt" --validation-split 0.05 --block-size 128
    --learning-rate 6e-4 --weight-decay 0.1 --num-warmup-steps 20 --max-steps 300
    --save-steps 150 --eval-steps 150 --logging-steps 25 --output-dir "$out/run")

echo "== 2 ranks, ZeRO-2, stopped after half of the steps by SIGUSR1 as a batch system would"
set +e
"${mpirun[@]}" -n 2 "${train[@]}" --deepspeed "$top/examples/zero2.json" \
    --per-device-train-batch-size 8 --gradient-accumulation-steps 1 &
pid=$!
for _ in $(seq 600); do
    [ ! -e "$out/run/checkpoints/latest" ] || break
    kill -0 $pid 2>/dev/null || break
    sleep 0.5
done
kill -USR1 $pid 2>/dev/null
wait $pid
rc=$?
set -e
[ $rc = 75 ] || [ $rc = 0 ] || { echo "training ended with $rc" >&2; exit 1; }

echo "== 1 rank, ZeRO-3, resumed from $(cat "$out/run/checkpoints/latest")"
"${train[@]}" --deepspeed "$top/examples/zero3.json" --resume latest \
    --per-device-train-batch-size 8 --gradient-accumulation-steps 2

echo "== what the newest checkpoint and the weights folder hold"
# sed and not head, which closes the pipe on a program that still writes
"$mpizero" inspect "$out/run/checkpoints/latest" | sed -n 1,8p
"$mpizero" inspect "$out/run/weights" | sed -n 1,6p

echo "== a text from the weights in $out/run/weights"
"$mpizero" generate --model "$out/run/weights" --tokenizer byte --prompt "This License " --max-new-tokens 100 \
    --temperature 0.8 --top-k 40 --seed 1
echo "== done; everything is in $out"
