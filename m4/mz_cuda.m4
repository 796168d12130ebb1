# MZ_CUDA: --with-cuda=auto|yes|no|DIR and --with-cuda-arch="sm_80 sm_90". Sets have_cuda, NVCC, CUDA_GENCODE,
# CUDA_CFLAGS, CUDA_LIBS and cuda_dir. A toolkit counts when it compiles a kernel that the C compiler can link.
AC_DEFUN([MZ_CUDA], [
AC_ARG_WITH([cuda], [AS_HELP_STRING([--with-cuda=auto|yes|no|DIR], [CUDA toolkit @<:@auto@:>@])], [], [with_cuda=auto])
AC_ARG_WITH([cuda-arch],
    [AS_HELP_STRING([--with-cuda-arch=LIST], [GPU architectures to compile for @<:@"sm_80 sm_90"@:>@])],
    [], [with_cuda_arch="sm_80 sm_90"])
AC_ARG_VAR([NVCC], [CUDA compiler])
AC_ARG_VAR([NVCCFLAGS], [CUDA compiler flags])
have_cuda=no
cuda_dir=
AS_CASE([$with_cuda],
    [no], [NVCC=],
    [auto|yes], [AC_PATH_PROG([NVCC], [nvcc], [], [$PATH:/usr/local/cuda/bin])],
    [/*], [AC_PATH_PROG([NVCC], [nvcc], [], [$with_cuda/bin])],
    [AC_MSG_ERROR([--with-cuda=$with_cuda: expected auto, yes, no or an absolute directory])])

# Hopper's own instructions (wgmma) are in sm_90a only, which every GPU of capability 9.0 runs.
CUDA_GENCODE=
for mz_arch in $with_cuda_arch; do
    AS_CASE([$mz_arch], [sm_*], [], [AC_MSG_ERROR([--with-cuda-arch=$with_cuda_arch: "$mz_arch" is not of the form sm_90])])
    mz_number=`echo "$mz_arch" | sed 's/^sm_//;s/^90$/90a/'`
    CUDA_GENCODE="$CUDA_GENCODE -gencode arch=compute_$mz_number,code=sm_$mz_number"
done

AS_IF([test -n "$NVCC"], [
    AC_MSG_CHECKING([whether CUDA programs can be built])
    cuda_dir=`dirname "$NVCC"`
    cuda_dir=`cd "$cuda_dir/.." && pwd`
    CUDA_CFLAGS="-I$cuda_dir/include"
    CUDA_LIBS="-lcublasLt -lcudart"
    for mz_lib in lib64 "lib/$mz_multiarch"; do
        AS_IF([test -e "$cuda_dir/$mz_lib/libcudart.so"],
            [CUDA_LIBS="-L$cuda_dir/$mz_lib -Wl,-rpath,$cuda_dir/$mz_lib $CUDA_LIBS"])
    done
    CUDA_LIBS="$CUDA_LIBS -lstdc++"
    MZ_CUDA_TRY
    AC_MSG_RESULT([$have_cuda])
])
AS_IF([test $have_cuda = yes],
    [AC_DEFINE([HAVE_CUDA], [1], [Define to 1 where CUDA programs can be built.])],
    [CUDA_CFLAGS= CUDA_LIBS=
     AS_CASE([$with_cuda], [yes|/*],
        [MZ_MISSING([the CUDA toolkit (nvcc, cudart and cublasLt that work with this compiler; see config.log)],
            [nvidia-cuda-toolkit g++], [cuda])])])
AC_SUBST([CUDA_GENCODE])
AC_SUBST([CUDA_CFLAGS])
AC_SUBST([CUDA_LIBS])
AM_CONDITIONAL([HAVE_CUDA], [test $have_cuda = yes])
])

# One kernel through nvcc, linked with the C compiler.
AC_DEFUN([MZ_CUDA_TRY], [
cat > conftest_kernel.cu <<'EOF'
#include <cublasLt.h>
__global__ void kernel(int *x) { *x = 1; }
extern "C" int launch(void)
{
    kernel<<<1, 1>>>(nullptr);
    return (int)cudaGetLastError() + (int)cublasLtGetVersion();
}
EOF
mz_saved_LIBS=$LIBS
AS_IF([$NVCC $CUDA_GENCODE $NVCCFLAGS -c -o conftest_kernel.o conftest_kernel.cu >&AS_MESSAGE_LOG_FD 2>&1], [
    LIBS="conftest_kernel.o $CUDA_LIBS $LIBS"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([int launch(void);], [return launch();])], [have_cuda=yes])
])
LIBS=$mz_saved_LIBS
rm -f conftest_kernel.cu conftest_kernel.o
])
