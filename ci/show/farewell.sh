#!/usr/bin/env bash
# No farewell is lost: 10,000 sessions on each port are closed with `close_with`, 32 at a time.
#
# A quarter of the peers reads at once; a quarter has sent what the server does not receive any more; for a quarter
# the send queue is full; and for a quarter it is full and the peer reads 10 kB every 5 ms. Half are closed in
# a callback, half by another thread. Each farewell says how many frames were accepted before it: all must have
# come, in order, then the farewell, then the end of the stream. Each session ends as kicked, with its own code.
#
# It is a test of tests/farewell.rs with more sessions, in a release build. --quick has 500, and uses the build of
# `cargo test --workspace`.
#
# usage: ci/show/farewell.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need cargo

export WHARF_TEST_FAREWELLS
WHARF_TEST_FAREWELLS=$(quick_or 500 10000)

BUILD=$(quick_or --workspace "--release --package wharf-net")

farewells() { # ARGUMENT...: runs the tests
    # shellcheck disable=SC2086 # several words
    (cd "$ROOT" && cargo test --quiet $BUILD --test farewell -- "$@")
}

farewells --list >/dev/null 2>"$SCRATCH/build" || cannot "the test was not built: $(tail -n 3 "$SCRATCH/build")"
for backend in uring readiness; do
    began=$SECONDS code=0
    farewells "no_farewell_is_lost_under_load::$backend" --exact --nocapture >"$SCRATCH/$backend" 2>&1 || code=$?
    came=$(grep -m 1 'farewells came\|passed over' "$SCRATCH/$backend" ||
        grep -m 1 -A 1 'panicked at' "$SCRATCH/$backend" | tail -n 1)
    came=${came:-exit code $code}
    check "$backend: $came ($((SECONDS - began)) s)" grep -q "^$WHARF_TEST_FAREWELLS farewells came" "$SCRATCH/$backend"
done
finish
