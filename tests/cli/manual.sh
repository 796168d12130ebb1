#!/bin/bash
# The manual page lists what --help lists: its part between the markers is what the program prints from its tables, and
# every flag of every --help is in it.
set -u
srcdir=${srcdir:-.}
builddir=${builddir:-.}
program=$builddir/mpizero
page=$srcdir/doc/mpizero.1
wrong=0

expected=$("$program" --manual-options) || exit 1
found=$(sed -n '/^\.\\" begin: mpizero --manual-options$/,/^\.\\" end$/p' "$page" | sed '1d;$d')
if [ "$expected" != "$found" ]; then
    echo "doc/mpizero.1 is not what 'mpizero --manual-options' prints:"
    diff <(echo "$found") <(echo "$expected") | head -n 20
    wrong=1
fi

for command in $("$program" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    flags=$("$program" "$command" --help | sed -n 's/^  --\([^ ]*\).*/--\1/p')
    [ -n "$flags" ] || { echo "$command --help lists no flag"; wrong=1; }
    section=$(awk -v name="$command" '/^\.SS/ { on = ($3 == name) } on { gsub(/\\-/, "-"); print }' "$page")
    while read -r flag; do
        grep -qF -e ".B $flag" <<<"$section" || { echo "$command: $flag is not in the manual"; wrong=1; }
    done <<<"$flags"
done
exit $wrong
