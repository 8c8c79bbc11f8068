# Shared by the scripts in this folder; sourced, never run.
# shellcheck shell=bash

pm_root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
pm_build_root=${PM_BUILD_ROOT:-$pm_root/build}
# Made by "ci/dependencies zig"; the toolchain files of "zig cc" ask for the folder.
case $pm_build_root in
/*) pm_made=$pm_build_root ;;
*) pm_made=$PWD/$pm_build_root ;;
esac
pm_zig=$pm_made/zig
export PMI_ZIG_BIN=$pm_zig/bin
# Made by ci/mingw-libraries, if not by somebody else; asked for by the toolchain file of MinGW-w64.
export PROCESSMGR_MINGW_PREFIX=${PROCESSMGR_MINGW_PREFIX:-$pm_made/mingw-prefix}
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

# pm_build PRESET DIR [CMAKE ARGUMENTS...]; those in PM_CMAKE_ARGUMENTS, too.
pm_build() {
    local preset=$1 dir=$2
    shift 2
    cd "$pm_root"
    # shellcheck disable=SC2086 # A list of words.
    cmake --preset "$preset" -B "$dir" "$@" ${PM_CMAKE_ARGUMENTS:-}
    cmake --build "$dir" -j "$pm_jobs"
}

# pm_foreign_imports FILE: the libraries that a 64-bit Windows file needs and Windows does not have;
# fails where there are none.
pm_foreign_imports() {
    local system='kernel32|advapi32|user32|shell32|ntdll|msvcrt|ucrtbase|api-ms-win-.*'
    system+='|ws2_32|iphlpapi|userenv|psapi|dbghelp|ole32'
    x86_64-w64-mingw32-objdump -p "$1" | sed -n 's/^\tDLL Name: //p' | grep -viE "^($system)\.dll$"
}

# pm_private_apt WORK: writes WORK/apt.conf, for APT_CONFIG: apt as this machine has it (proxies, pins,
# keys), but for its hooks, its lists of sources (WORK/parts is used) and all that it writes. Later
# settings win.
pm_private_apt() {
    local work=$1
    mkdir -p "$work/parts" "$work/lists/partial" "$work/cache/archives/partial"
    {
        apt-config dump | grep -E '^(Acquire|Dir|APT::(Architectures?|Default-Release|Key))\b'
        printf '%s\n' 'Dir::Etc::main "/dev/null";' 'Dir::Etc::parts "/dev/null";' \
            'Dir::Etc::sourcelist "/dev/null";' "Dir::Etc::sourceparts \"$work/parts\";" \
            "Dir::State::lists \"$work/lists\";" "Dir::Cache \"$work/cache\";" \
            'Dir::Cache::archives "archives/";' \
            'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' \
            'Acquire::Languages "none";' 'Acquire::AllowInsecureRepositories "false";' \
            'Acquire::AllowWeakRepositories "false";' \
            'Acquire::AllowDowngradeToInsecureRepositories "false";' \
            'APT::Get::AllowUnauthenticated "false";' 'APT::Sandbox::User "root";'
    } >"$work/apt.conf"
}
