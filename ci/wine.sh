#!/usr/bin/env bash
# Runs a command that builds or runs Windows programs, with Wine in the place of Windows:
#
#     ci/wine.sh cargo test -p wharf-net --lib --target x86_64-pc-windows-gnu
#     ci/wine.sh bash -c '"$WINE" target/x86_64-pc-windows-gnu/release/wharf.exe echo'
#
# Installs what is missing (Debian's packages), makes a prefix of its own under the target directory
# once (about 700 MB), and leaves no process behind. Several may run at the same time: they share the
# prefix and its server, and the last to end stops it. WINEDEBUG=err+all shows what Wine has to say.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET=x86_64-pc-windows-gnu
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

cannot() {
    printf 'wine.sh: %s\n' "$*" >&2
    exit 2
}

[ $# -gt 0 ] || cannot "usage: ci/wine.sh COMMAND [ARGUMENT...]"

# --- What must be there -----------------------------------------------------------------------

# The first of these that can be run.
first_of() {
    local candidate
    for candidate in "$@"; do
        if command -v "$candidate"; then return 0; fi
    done
    return 1
}

find_tools() {
    WINE=$(first_of /usr/lib/wine/wine64 wine64 wine) &&
        WINESERVER=$(first_of /usr/lib/wine/wineserver64 /usr/lib/wine/wineserver wineserver) &&
        MINGW_CC=$(first_of x86_64-w64-mingw32-gcc)
}

if ! find_tools; then
    {
        apt-get update -q
        apt-get install -q -y --no-install-recommends wine64 gcc-mingw-w64-x86-64-win32
    } >&2 || cannot "Wine and mingw-w64 are missing and could not be installed"
    find_tools || cannot "Wine or mingw-w64 is still missing after it was installed"
fi
command -v flock >/dev/null || cannot "flock (util-linux) is missing"
if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx "$TARGET"; then
    rustup target add "$TARGET" >&2 || cannot "the Rust target $TARGET could not be had"
fi

# --- How Wine is run --------------------------------------------------------------------------

mkdir -p "$TARGET_DIR/wine"
export WINEPREFIX
WINEPREFIX=$(cd "$TARGET_DIR/wine" && pwd)/prefix
export WINEARCH=win64
export WINEDEBUG=${WINEDEBUG--all}
# No .NET, no browser; and without the last, a crash waits for a debugger for ever.
export WINEDLLOVERRIDES='mscoree=;mshtml=;winemenubuilder.exe=d;winedbg.exe=d'
unset DISPLAY WAYLAND_DISPLAY
export WINE
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$WINE
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=$MINGW_CC
# Each socket is a descriptor of the program's and one of Wine's server.
ulimit -n "$(ulimit -H -n)"

make_prefix() {
    rm -rf "$WINEPREFIX"
    "$WINE" wineboot -i
    "$WINE" winecfg /v win10
    local system="$WINEPREFIX/drive_c/windows/system32"
    if [ ! -e "$system/bcryptprimitives.dll" ]; then
        "$MINGW_CC" -O2 -shared -o "$system/bcryptprimitives.dll" ci/wine/bcryptprimitives.c \
            -ladvapi32
    fi
    # Waits until all of it has been written.
    "$WINESERVER" -k || true
    "$WINESERVER" -w
    touch "$WINEPREFIX/complete"
}

# A shared lock is held by everyone who uses the prefix, an exclusive one while it is made and while
# its server is stopped. Nobody but this shell may keep it: a child that did would keep the server.
exec 9>"$TARGET_DIR/wine/lock"
if [ ! -e "$WINEPREFIX/complete" ]; then
    flock -x 9
    if [ ! -e "$WINEPREFIX/complete" ]; then
        echo "wine.sh: making a prefix in $WINEPREFIX" >&2
        make_prefix </dev/null >"$TARGET_DIR/wine/prefix.log" 2>&1 9>&- ||
            cannot "the prefix could not be made: see $TARGET_DIR/wine/prefix.log"
    fi
fi
flock -s 9

# Only the last one gets the lock, and there is nobody left whose programs could end by it.
clean_up() {
    if flock -n -x 9; then
        "$WINESERVER" -k 9>&- 2>/dev/null || true
        "$WINESERVER" -w 9>&- 2>/dev/null || true
    fi
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# Started before the programs, so that it has none of their descriptors and outlives each of them.
"$WINESERVER" -p </dev/null >/dev/null 2>&1 9>&- || true

code=0
"$@" 9>&- || code=$?
exit "$code"
