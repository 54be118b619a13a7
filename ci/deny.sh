#!/usr/bin/env bash
# What the workspace depends on, by deny.toml: licenses, duplicates and sources of packages, and known advisories.
# The advisories are fetched; where they cannot be, that part says so and does not fail.
#
# usage: ci/deny.sh [--if-installed]
#   Without it cargo-deny is installed where it is missing, which takes minutes. With it, that is said instead.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=0.20.2

case ${1-} in
'' | --if-installed) ;;
*) echo "usage: ci/deny.sh [--if-installed]" >&2 && exit 2 ;;
esac
if [ "$(cargo deny --version 2>/dev/null)" != "cargo-deny $VERSION" ]; then
    if [ -n "${1-}" ]; then
        echo "NOT CHECKED: cargo-deny $VERSION is not installed; ci/long dependencies installs it" && exit
    fi
    cargo install cargo-deny --locked --version "$VERSION"
fi

cargo deny --locked check --hide-inclusion-graph licenses bans sources
if cargo deny fetch db; then
    cargo deny --locked check --disable-fetch --hide-inclusion-graph advisories
else
    echo "NOT CHECKED: advisories, because their database cannot be fetched here"
fi
