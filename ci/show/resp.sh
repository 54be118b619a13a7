#!/usr/bin/env bash
# The example `resp` beside redis-server, both on core 0, asked by redis-benchmark on core 1: PING, SET and GET of 50 and
# of 200 clients, one request or 16 at a time, and values of 16 KB. For each case the server's CPU time for a request,
# in turns; the median of the rounds' ratios is at most 0.9 with one request at a time, and at most 1.0 else.
#
# usage: ci/show/resp.sh [ROUNDS]      default 7
#
# Exit codes: 0; 1, a ratio is above its bound; 2, it could not be run.
set -euo pipefail
cd "$(dirname "$0")/../.."
ROUNDS=${1-7}
for needed in redis-server redis-benchmark taskset python3; do
    if ! command -v "$needed" >/dev/null; then
        echo "$needed is missing (apt-get install redis-server redis-tools util-linux python3)" >&2
        exit 2
    fi
done
cargo build --release --quiet --locked -p wharf-net --example resp || exit 2
RESP=${CARGO_TARGET_DIR:-target}/release/examples/resp
exec python3 ci/show/resp.py "$RESP" "$ROUNDS"
