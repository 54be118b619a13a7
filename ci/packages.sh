#!/usr/bin/env bash
# Makes the packages that are published, unpacks them, and checks what is in them with the least compiler (the
# `rust-version` of Cargo.toml, which is installed where it is missing). Fails if one does not compile or is too large.
#
# None needs to be on the registry: cargo makes them as if the others were, and each is checked with the others as they
# were unpacked. (Cargo's own verification would take another run's, if the version is the same.)
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGE_KB_MAX=600

least=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/packages
export CARGO_TARGET_DIR
rustup run "$least" rustc --version || rustup toolchain install "$least" --profile minimal

unpacked=$CARGO_TARGET_DIR/unpacked
rm -rf "$CARGO_TARGET_DIR/package" "$unpacked"
mkdir -p "$unpacked"
# Tests stay out of the packages on purpose, and there is no URL to name.
cargo package --quiet --locked --workspace --exclude wharf-soak --no-verify --allow-dirty 2>&1 |
    awk '/^warning: (ignoring|manifest has no documentation)/ { note = 1; next }
         note && /^ *(\||=)/ { next }
         { note = 0; print }'
printf '[workspace]\nresolver = "3"\nmembers = ["*"]\n\n[patch.crates-io]\n' >"$unpacked/Cargo.toml"
for package in "$CARGO_TARGET_DIR"/package/*.crate; do
    kb=$(($(stat -c %s "$package") / 1000))
    printf '%s: %d kB\n' "$(basename "$package")" "$kb"
    [ "$kb" -le "$PACKAGE_KB_MAX" ] || { echo "more than $PACKAGE_KB_MAX kB: see include in its Cargo.toml" && exit 1; }
    # -m: as new, or what changed would not be seen.
    tar -xzmf "$package" -C "$unpacked"
    folder=$(basename "$package" .crate)
    printf '%s = { path = "%s" }\n' "${folder%-*}" "$folder" >>"$unpacked/Cargo.toml"
done
cp Cargo.lock "$unpacked"
cd "$unpacked"
cargo "+$least" check --quiet --workspace --all-features
