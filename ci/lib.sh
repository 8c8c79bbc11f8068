# Shared by the scripts in this folder; sourced, never run.
# shellcheck shell=bash

pm_root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
pm_build_root=${PM_BUILD_ROOT:-$pm_root/build}
# Made by "ci/dependencies zig"; the toolchain files of "zig cc" ask for the folder.
case $pm_build_root in
/*) pm_zig=$pm_build_root/zig ;;
*) pm_zig=$PWD/$pm_build_root/zig ;;
esac
export PMI_ZIG_BIN=$pm_zig/bin
pm_jobs=${PM_JOBS:-$(nproc 2>/dev/null || echo 2)}

pm_die() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 1
}

# pm_step TITLE COMMAND...: runs the command, prints its time; the output only when it fails.
pm_step() {
    local title=$1 log begin rc=0
    shift
    log=$(mktemp)
    begin=$(date +%s.%N)
    "$@" >"$log" 2>&1 </dev/null || rc=$?
    if [ "$rc" -ne 0 ]; then
        cat "$log"
        printf '%s: FAILED (exit code %d)\n' "$title" "$rc"
    else
        printf '%s: %s s\n' "$title" "$(pm_since "$begin")"
    fi
    rm -f "$log"
    return "$rc"
}

pm_since() {
    awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }'
}

# pm_build PRESET DIR [CMAKE ARGUMENTS...]
pm_build() {
    local preset=$1 dir=$2
    shift 2
    cd "$pm_root"
    cmake --preset "$preset" -B "$dir" "$@"
    cmake --build "$dir" -j "$pm_jobs"
}

# pm_foreign_imports FILE: the libraries that a 64-bit Windows file needs and Windows does not have;
# fails where there are none.
pm_foreign_imports() {
    x86_64-w64-mingw32-objdump -p "$1" | sed -n 's/^\tDLL Name: //p' |
        grep -viE '^(kernel32|advapi32|user32|shell32|ntdll|msvcrt|ucrtbase|api-ms-win-.*)\.dll$'
}
