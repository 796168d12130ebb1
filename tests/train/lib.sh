# Shared by the tests that run the program: a tiny model, a tiny text, runs over ranks, and comparisons of metrics.
# Sourced; expects srcdir and builddir as automake gives them.
set -u
srcdir=$(cd "${srcdir:-.}" && pwd)
builddir=$(cd "${builddir:-.}" && pwd)
# used by the tests that source this
# shellcheck disable=SC2034
mpizero=$builddir/mpizero
# shellcheck disable=SC2034
work=$(mktemp -d "${TMPDIR:-/tmp}/mpizero-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMPI_MCA_btl_base_warn_component_unused=0
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
failures=0

fail() {
    echo "FAIL: $*"
    failures=$((failures + 1))
}

finish() {
    [ "$failures" = 0 ] || { echo "$failures failures"; exit 1; }
    echo "all good"
    exit 0
}

# ranks N COMMAND...: over N ranks, at most 120 s.
ranks() {
    local n=$1
    shift
    if [ "$n" = 1 ]; then timeout 120 "$@"; else timeout 120 mpirun --oversubscribe -n "$n" "$@"; fi
}

# tiny_model FOLDER [KEY=VALUE...]: a GPT-2 of odd sizes with the byte tokenizer's vocabulary.
tiny_model() {
    mkdir -p "$1"
    cat >"$1/config.json" <<JSON
{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 259, "n_positions": 64, "n_embd": 36,
 "n_layer": 3, "n_head": 3, "activation_function": "gelu_new", "resid_pdrop": ${DROPOUT:-0.0},
 "embd_pdrop": ${DROPOUT:-0.0}, "attn_pdrop": ${DROPOUT:-0.0}, "bos_token_id": 256, "eos_token_id": 256}
JSON
}

# tiny_text FILE [BYTES]: words from a fixed generator.
tiny_text() {
    awk -v bytes="${2:-40000}" 'BEGIN {
        split("the a of to in rank node shard step loss and is was gather reduce model train weight token", w, " ")
        x = 12345
        while (n < bytes) {
            x = (x * 1103515245 + 12345) % 2147483648
            s = w[int(x / 65536) % 20 + 1] (int(x / 1024) % 9 == 0 ? ".\n" : " ")
            printf "%s", s
            n += length(s)
        }
    }' >"$1"
}

# column KEY FILE: the values of a key in the training lines of a metrics.jsonl, in order.
column() {
    grep -v eval_loss "$2" | sed -n 's/.*"'"$1"'":\([^,}]*\).*/\1/p'
}

# same_values TOLERANCE FILE_A FILE_B WHAT: two columns equal within a relative tolerance, and not empty.
same_values() {
    local message
    message=$(paste "$2" "$3" | awk -v tol="$1" '
        NF != 2 { print "line " NR ": different lengths"; bad = 1; exit }
        { d = $1 - $2; if (d < 0) d = -d; s = $1 < 0 ? -$1 : $1
          if (!(d <= tol * (s > 1e-30 ? s : 1e-30))) { print "line " NR ": " $1 " and " $2; bad = 1; exit } }
        END { if (!bad && NR == 0) print "nothing to compare" }')
    [ -z "$message" ] || fail "$4: $message"
}
