#!/usr/bin/env bash
# The parts that know no operating system under Miri, which judges every access to memory, and every
# ordering of the atomics that it tries. It knows no io_uring and no epoll: for the ports there is
# ci/sanitizers.sh.
#
# What is missing (nightly with miri and rust-src) is installed. Tests that would take minutes here
# do less of the same when `cfg!(miri)`.
#
# usage: ci/miri.sh [--full]
#   --full: also the tests of what threads share with many seeds, each another interleaving, and all
#   of them by the other model of borrowing. SEEDS says how many seeds
set -euo pipefail
cd "$(dirname "$0")/.."

# Paths of tests. The simulated port's own are all there is of ports here.
PURE=(session:: framing:: buffer:: timer:: chunks::)
PORT=(port::simulated::tests::)
# Whose steps several threads take at the same time.
SHARED=(session::half:: session::table:: session::count::)
SEEDS=${SEEDS:-16}

case ${1-} in
'' | --full) ;;
*) echo "usage: ci/miri.sh [--full]" >&2 && exit 2 ;;
esac

rustup +nightly component list --installed 2>/dev/null | grep -q '^miri' ||
    rustup toolchain install nightly --profile minimal --component miri --component rust-src

# miri FLAGS ARGUMENT...
miri() {
    local flags=$1
    shift
    MIRIFLAGS=$flags cargo +nightly miri test -p wharf-net --features simulation --lib -- "$@"
}

# Miri runs on one core, and its clock is its own: so both halves at once.
all_parts() { # FLAGS
    local port code=0
    miri "$1" --list >/dev/null # is built once
    miri "$1" "${PORT[@]}" >"$log" 2>&1 &
    port=$!
    miri "$1" "${PURE[@]}" || code=$?
    wait "$port" || code=$?
    cat "$log"
    return "$code"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
started=$SECONDS
all_parts "-Zmiri-strict-provenance"
if [ "${1-}" = --full ]; then
    miri "-Zmiri-strict-provenance -Zmiri-many-seeds=0..$SEEDS" "${SHARED[@]}"
    all_parts "-Zmiri-tree-borrows"
fi
printf 'miri: %d s\n' $((SECONDS - started))
