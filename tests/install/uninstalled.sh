#!/bin/bash
# A program outside this tree builds with the library that lies in the build tree, by mpizero-uninstalled.pc.
command -v pkg-config >/dev/null || { echo "pkg-config is missing"; exit 77; }
command -v mpicc >/dev/null || { echo "mpicc is missing"; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export PKG_CONFIG_PATH=${builddir:-.}
# pkg-config prefers the uninstalled library when both are there.
[ -e "$PKG_CONFIG_PATH/mpizero-uninstalled.pc" ] || { echo "mpizero-uninstalled.pc is missing"; exit 1; }
read -r -a flags < <(pkg-config --cflags --libs mpizero) || exit 1
mpicc -std=c11 "${srcdir:-.}/examples/mlp.c" "${flags[@]}" -lm -o "$work/mlp" || exit 1
timeout 60 "$work/mlp" | grep "told apart"
