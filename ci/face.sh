#!/usr/bin/env bash
# Compares the library's public face, all features on, with crates/wharf/api.txt: one line for each public item, from
# what rustdoc writes as JSON. Fails if they differ, with the difference: a change of the face is seen in review.
#
# The toolchain is pinned, because rustdoc's JSON changes with it; it is installed where it is missing. ci/face/ reads
# the JSON, and its lock file pins the rest.
#
# usage: ci/face.sh [--renew]
#   --renew: writes crates/wharf/api.txt
set -euo pipefail
cd "$(dirname "$0")/.."

TOOLCHAIN=nightly-2026-10-30
FACE=crates/wharf/api.txt

case ${1-} in
'' | --renew) ;;
*) echo "usage: ci/face.sh [--renew]" >&2 && exit 2 ;;
esac

# Apart from the usual build, of which nothing is made anew.
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/face
export CARGO_TARGET_DIR
rustup run "$TOOLCHAIN" rustc --version || rustup toolchain install "$TOOLCHAIN" --profile minimal
cargo build --quiet --locked --manifest-path ci/face/Cargo.toml
cargo "+$TOOLCHAIN" rustdoc --quiet --locked -p wharf-net --lib --all-features -- \
    -Zunstable-options --output-format json
now=$CARGO_TARGET_DIR/api.txt
"$CARGO_TARGET_DIR/debug/face" "$CARGO_TARGET_DIR/doc/wharf.json" >"$now"
[ "$(wc -l <"$now")" -gt 500 ] || { echo "the face was not read: see $now" >&2 && exit 1; }

if [ "${1-}" = --renew ]; then
    cp "$now" "$FACE"
elif ! diff -u "$FACE" "$now"; then
    printf '\nTHE PUBLIC FACE DIFFERS from %s. If it is meant to: ci/face.sh --renew, and an entry in CHANGELOG.md\n' \
        "$FACE"
    exit 1
fi
printf 'face: %d lines\n' "$(wc -l <"$FACE")"
