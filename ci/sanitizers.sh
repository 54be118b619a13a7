#!/usr/bin/env bash
# The tests of the library under AddressSanitizer and under ThreadSanitizer: the ports' unsafe code
# and what several threads share, on the real kernel, where Miri cannot go. All unit tests, the
# contract suite on uring and readiness among them, then the integration tests.
#
# The standard library is built the same way, so that its locks and channels are understood. What is
# missing (nightly, its sources) is installed. ThreadSanitizer does not see what the kernel writes:
# ci/sanitizers/*.suppressions say which reports are no faults, and why.
#
# usage: ci/sanitizers.sh [address|thread] [ARGUMENT OF cargo test...]
#        ci/sanitizers.sh thread --lib -- port::contract::uring
set -euo pipefail
cd "$(dirname "$0")/.."
HERE=$PWD/ci/sanitizers

TARGET=x86_64-unknown-linux-gnu
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

sanitizers=(address thread)
case ${1-} in
address | thread)
    sanitizers=("$1")
    shift
    ;;
esac
# Without --doc: an example of the documentation is linked without the sanitizer's flags.
if [ $# -eq 0 ]; then set -- --lib --tests; fi

rustup +nightly component list --installed 2>/dev/null | grep -qx rust-src ||
    rustup toolchain install nightly --profile minimal --component rust-src

for sanitizer in "${sanitizers[@]}"; do
    printf '\n== %s\n' "$sanitizer"
    started=$SECONDS
    # Unoptimised, they would be so slow that time-outs of the tests end them. A report ends a test
    # with an error of its own, and --no-fail-fast shows them all.
    CARGO_TARGET_DIR=$TARGET_DIR/sanitizers/$sanitizer CARGO_PROFILE_DEV_OPT_LEVEL=1 \
        RUSTFLAGS="-Zsanitizer=$sanitizer" \
        ASAN_OPTIONS="detect_stack_use_after_return=1" \
        LSAN_OPTIONS="suppressions=$HERE/leak.suppressions" \
        TSAN_OPTIONS="suppressions=$HERE/thread.suppressions" \
        cargo +nightly test -Zbuild-std --target "$TARGET" -p wharf-net --no-fail-fast "$@" 2>&1 |
        tee "$TARGET_DIR/sanitizers-$sanitizer.log"
    awk -v sanitizer="$sanitizer" -v seconds=$((SECONDS - started)) '
        /^test result:/ { passed += $4; failed += $6 }
        END { printf "%s: %d tests passed, %d failed, %d s\n", sanitizer, passed, failed, seconds }
    ' "$TARGET_DIR/sanitizers-$sanitizer.log"
done
