#!/bin/bash
# The manual page lists what --help lists: its part between the markers is what the program prints from its tables, and
# every flag of every --help is in it.
set -u
srcdir=${srcdir:-.}
builddir=${builddir:-.}
program=$builddir/mpizero
page=$srcdir/doc/mpizero.1
list=$(mktemp "${TMPDIR:-/tmp}/mpizero-manual.XXXXXX")
trap 'rm -f "$list"' EXIT
wrong=0

expected=$("$program" --manual-options) || exit 1
found=$(sed -n '/^\.\\" begin: mpizero --manual-options$/,/^\.\\" end$/p' "$page" | sed '1d;$d')
if [ "$expected" != "$found" ]; then
    echo "doc/mpizero.1 is not what 'mpizero --manual-options' prints:"
    diff <(echo "$found") <(echo "$expected") | head -n 20
    wrong=1
fi

"$program" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\( [a-z]*\)\?\)  .*/\1/p' >"$list"
while read -r command; do
    # shellcheck disable=SC2086 # a name may be two words
    flags=$("$program" $command --help | sed -n 's/^  --\([^ ]*\).*/--\1/p')
    [ -n "$flags" ] || { echo "$command --help lists no flag"; wrong=1; }
    section=$(awk -v name="$command" '/^\.SS/ { on = ($3 == name || $3 " " $4 == name) } on { gsub(/\\-/, "-"); print }' "$page")
    while read -r flag; do
        grep -qF -e ".B $flag" <<<"$section" || { echo "$command: $flag is not in the manual"; wrong=1; }
    done <<<"$flags"
done <"$list"
[ "$(wc -l <"$list")" -ge 8 ] || { echo "--help lists fewer commands than there are"; wrong=1; }
exit $wrong
