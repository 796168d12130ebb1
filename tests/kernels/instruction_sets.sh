# The kernel tests on every instruction set that this processor has.
for isa in avx512_bf16 avx512 avx2 openblas generic; do
    out=$(MPIZERO_CPU_ISA=$isa "$builddir"/tests/kernels/test_kernels cpu) || { echo "$out"; exit 1; }
    case $out in
    *", $isa, "*) echo "$isa: passed" ;;
    *) echo "$isa: this processor or this build lacks it" ;;
    esac
done
