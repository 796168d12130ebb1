# The kernel tests on every instruction set that this processor has but the best one, which test_kernels takes by itself.
# As many at once as there are processors.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
best=$("$builddir"/tests/kernels/test_kernels cpu none)
sets=()
for isa in generic openblas avx2 avx512 avx512_bf16; do
    case $best in
    *", $isa, "*) ;;
    *) sets+=("$isa") ;;
    esac
done

# try ISA: its verdict in $work/ISA
try() {
    MPIZERO_CPU_ISA=$1 "$builddir"/tests/kernels/test_kernels cpu >"$work/$1.log" 2>&1 || echo failed >"$work/$1"
}

for isa in "${sets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
        wait -n
    done
    try "$isa" &
done
wait
wrong=0
for isa in "${sets[@]}"; do
    if [ -e "$work/$isa" ]; then
        cat "$work/$isa.log"
        wrong=1
    elif grep -q ", $isa, " "$work/$isa.log"; then
        echo "$isa: passed"
    else
        echo "$isa: this processor or this build lacks it"
    fi
done
exit $wrong
