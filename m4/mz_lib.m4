# MZ_LIB(NAME, VAR, TITLE, PACKAGES, CANDIDATES, LIBS, HEADERS, CALL, NEED, [HELP = TITLE])
#
# Adds --with-NAME=auto|yes|no|DIR, sets VAR_CFLAGS, VAR_LIBS and have_NAME, and defines HAVE_VAR.
#   PACKAGES    what Debian and Ubuntu call it, for messages
#   CANDIDATES  where to look, in order, blank-separated shell words: pkg:MODULE, paths:INCLUDEDIR:LIBDIR
#               (either may be empty), DIR. With --with-NAME=DIR only DIR is looked at.
#   LIBS        what to link with in a place that is not a pkg-config module
#   HEADERS     C code before main, CALL a statement that needs the library
#   NEED        required: a missing one is an error with auto, too. optional otherwise.
# Each candidate is compiled and linked before it is taken. VAR_CFLAGS and VAR_LIBS given by the user are used as they
# are. Requests that cannot be met are collected and reported together by MZ_REPORT_MISSING.
AC_DEFUN([MZ_LIB], [
AC_ARG_WITH([$1], [AS_HELP_STRING([--with-$1=auto|yes|no|DIR], m4_default([$10], [$3])[ @<:@auto@:>@])], [], [with_$1=auto])
AC_ARG_VAR([$2_CFLAGS], [C compiler flags for $3, instead of looking for it])
AC_ARG_VAR([$2_LIBS], [linker flags for $3, instead of looking for it])
AC_MSG_CHECKING([for $3])
have_$1=no
found_$1=
AS_CASE([$with_$1],
    [no], [mz_candidates=],
    [auto|yes], [mz_candidates="$5"],
    [/*], [mz_candidates=$with_$1],
    [AC_MSG_ERROR([--with-$1=$with_$1: expected auto, yes, no or an absolute directory])])
AS_IF([test "x$with_$1" != xno && test -n "$$2_LIBS"], [mz_candidates=given])
mz_saved_CPPFLAGS=$CPPFLAGS
mz_saved_LIBS=$LIBS
for mz_candidate in $mz_candidates; do
    MZ_CANDIDATE_FLAGS([$mz_candidate], [$2], [$6])
    CPPFLAGS="$mz_saved_CPPFLAGS $mz_cflags"
    LIBS="$mz_libs $mz_saved_LIBS"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([$7], [$8])], [have_$1=yes])
    AS_IF([test $have_$1 = yes], [
        $2_CFLAGS=$mz_cflags
        $2_LIBS=$mz_libs
        found_$1=$mz_from
        break
    ])
done
CPPFLAGS=$mz_saved_CPPFLAGS
LIBS=$mz_saved_LIBS
AS_IF([test $have_$1 = yes],
    [AC_MSG_RESULT([$found_$1])
     AC_DEFINE([HAVE_$2], [1], [Define to 1 where $3 was found.])],
    [AC_MSG_RESULT([no])
     $2_CFLAGS=
     $2_LIBS=
     AS_CASE([$9:$with_$1],
        [required:no], [AC_MSG_ERROR([--with-$1=no: mpizero cannot be built without $3])],
        [required:*|*:yes|*:/*], [MZ_MISSING([$3], [$4], [$1])])])
])

# Flags of one candidate: sets mz_cflags, mz_libs, and mz_from for the result line.
AC_DEFUN([MZ_CANDIDATE_FLAGS], [
    mz_cflags= mz_libs= mz_from=$1
    AS_CASE([$1],
        [given], [
            mz_cflags=$$2_CFLAGS
            mz_libs=$$2_LIBS
            mz_from="$mz_libs"],
        [pkg:*], [
            mz_module=`echo "$1" | sed 's/^pkg://'`
            AS_IF([test -n "$PKG_CONFIG" && $PKG_CONFIG --exists "$mz_module"], [
                mz_cflags=`$PKG_CONFIG --cflags "$mz_module"`
                mz_libs=`$PKG_CONFIG --libs "$mz_module"`
                mz_from="$mz_module `$PKG_CONFIG --modversion "$mz_module"`"],
                [continue])],
        [paths:*], [
            mz_include=`echo "$1" | cut -d: -f2`
            mz_lib=`echo "$1" | cut -d: -f3`
            mz_libs="$3"
            mz_from="$mz_libs"
            AS_IF([test -n "$mz_include"], [mz_cflags="-I$mz_include" mz_from="$mz_include"])
            AS_IF([test -n "$mz_lib"], [mz_libs="-L$mz_lib $mz_libs"])],
        [
            # The library must be there, and not merely somewhere where the compiler looks anyway.
            mz_first=`echo "$3" | sed 's/^-l//; s/ .*//'`
            for mz_lib in lib lib64 "lib/$mz_multiarch"; do
                AS_IF([test -e "$1/$mz_lib/lib$mz_first.so" || test -e "$1/$mz_lib/lib$mz_first.a"],
                    [mz_libs="-L$1/$mz_lib -Wl,-rpath,$1/$mz_lib $3"
                     break])
            done
            AS_IF([test -z "$mz_libs"], [continue])
            mz_cflags="-I$1/include"])
])

# MZ_MISSING(TITLE, PACKAGES, NAME): notes a request that cannot be met.
AC_DEFUN([MZ_MISSING], [
mz_missing="$mz_missing
  $1: install $2, or say where it is with --with-$3=DIR"
mz_missing_packages="$mz_missing_packages $2"
])

# MZ_REPORT_MISSING: ends configure when something is missing, with all that is.
AC_DEFUN([MZ_REPORT_MISSING], [
AS_IF([test -n "$mz_missing"], [AC_MSG_ERROR([not found:
$mz_missing

On Debian and Ubuntu:
  apt-get install$mz_missing_packages
])])
])
