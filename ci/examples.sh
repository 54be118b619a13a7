#!/usr/bin/env bash
# Runs each example once, as a user would, and checks that it does what it says.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
cargo build --release -q --workspace --examples
cargo build --release -q

"$target/release/examples/echo" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    if (exec 3<>/dev/tcp/127.0.0.1/7000) 2>/dev/null; then break; fi
    kill -0 "$server" # it must not have ended
    read -rt 0.05 <> <(:) || true
done
"$target/release/wharf" load echo --target 127.0.0.1:7000 --sessions 50 --secs 1
echo "examples: echo serves on 127.0.0.1:7000"
