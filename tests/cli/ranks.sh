#!/bin/bash
# Over ranks: a failure is told once and every rank fails; a wrong flag is told once; nodes can be cut.
set -u
builddir=${builddir:-.}
program=$builddir/mpizero
folder=$(mktemp -d "${TMPDIR:-/tmp}/mpizero-cli.XXXXXX")
trap 'rm -rf "$folder"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
command -v mpirun >/dev/null || { echo "mpirun is missing"; exit 77; }
wrong=0

fail() {
    echo "$*"
    wrong=1
}

# told TIMES CODE WORDS COMMAND...: standard error holds a line with WORDS this often, and mpirun ends with CODE
told() {
    local times=$1 code=$2 words=$3 text rc n
    shift 3
    text=$(timeout 60 mpirun --oversubscribe -n 3 "$@" 2>&1)
    rc=$?
    n=$(grep -cF -e "$words" <<<"$text")
    [ "$n" = "$times" ] && [ $rc = "$code" ] ||
        fail "$*: expected $times times \"$words\" and $code, found $n and $rc: $text"
}

told 1 2 "unknown flag --foo" "$program" train --foo
told 1 1 "error: " "$program" train --model "$folder/nowhere" --train-data "$folder/nothing"
told 1 0 "3 ranks on 1 node" "$program" topo
told 1 0 "3 ranks on 2 nodes" "$program" topo --ranks-per-node 2
told 1 0 "Usage: mpizero topo" "$program" topo --help
told 1 2 "--interface none0: expected a network interface" "$program" bench collectives --sizes 64K --interface none0

# Who speaks for all comes last.
cat >"$folder/late.sh" <<SH
#!/bin/bash
[ "\$OMPI_COMM_WORLD_RANK" != 0 ] || sleep 0.7
exec "$program" train --foo
SH
chmod +x "$folder/late.sh"
told 1 2 "unknown flag --foo" "$folder/late.sh"

# A configuration that only one rank reads otherwise: one message, and no rank hangs.
cat >"$folder/config.json" <<'JSON'
{"model_type": "gpt2", "vocab_size": 259, "n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2}
JSON
printf 'some text that is long enough for a few blocks of tokens %.0s' $(seq 60) >"$folder/text.txt"
cat >"$folder/one.sh" <<SH
#!/bin/bash
stage=1
[ "\$OMPI_COMM_WORLD_RANK" != 2 ] || stage=2
exec "$program" train --model "$folder" --tokenizer byte --train-data "$folder/text.txt" --block-size 32 \
    --per-device-train-batch-size 1 --max-steps 2 --zero-stage \$stage --output-dir "$folder/run" --cpu-threads 1
SH
chmod +x "$folder/one.sh"
told 1 1 "error: " "$folder/one.sh"

# One rank with a wrong command line never starts MPI; the job ends.
cat >"$folder/flag.sh" <<SH
#!/bin/bash
[ "\$OMPI_COMM_WORLD_RANK" != 1 ] || exec "$program" topo --nonsense
exec "$program" topo
SH
chmod +x "$folder/flag.sh"
timeout 60 mpirun --oversubscribe -n 3 "$folder/flag.sh" >"$folder/out" 2>&1
rc=$?
[ $rc != 0 ] && [ $rc != 124 ] || fail "one wrong command line among three: ended with $rc: $(cat "$folder/out")"
exit $wrong
