#!/usr/bin/env bash
# What WebSocket takes beside sockets and sessions: a message cut and unmasked, and the head of a request read, beside
# plain loops that do the same. CPU time of one thread, in memory that the caches hold. The codec is private, so it is
# built with the fuzzer's door open.
#
#   bench/web_socket.sh
#
# Exit codes: 0, as fast as asked; 1, slower; 2, it could not be measured.
set -euo pipefail
cd "$(dirname "$0")"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/web_socket
RUSTFLAGS="${RUSTFLAGS-} --cfg fuzzing" cargo build --release --quiet --locked -p web-socket || exit 2
exec "$CARGO_TARGET_DIR/release/web-socket"
