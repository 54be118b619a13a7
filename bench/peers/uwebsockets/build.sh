#!/usr/bin/env bash
# Builds the server on uWebSockets. The library is in no Debian package; the Python package `socketify` brings it built
# for Linux on x86-64. It is fetched with pip once, stays beside the binary, and is not part of this repository.
#
#   bench/peers/uwebsockets/build.sh SOURCE BINARY
set -euo pipefail

source=$1 binary=$2
place=$(dirname "$binary")/uwebsockets
library=$place/libsocketify_linux_amd64.so
if [ ! -e "$library" ]; then
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/wharf-uwebsockets.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    echo 'socketify==0.0.31 --hash=sha256:7502bed5b382e75f04ea3c6d6b53b76f27bb8653740db92e3f2b55fab388df20' \
        >"$scratch/wanted"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --require-hashes \
        --dest "$scratch" --requirement "$scratch/wanted"
    tar -xzf "$scratch"/socketify-*.tar.gz -C "$scratch"
    mkdir -p "$place"
    cp "$scratch"/socketify-*/src/socketify/libsocketify_linux_amd64.so "$place"
fi
gcc -std=gnu11 -O3 -Wall -Wextra -o "$binary" "$source" "$library" -luv -Wl,-rpath,"$place"
