#!/usr/bin/env bash
# The speed floor: CPU time of the server per message, 64 B echoed at 1,000 sessions, against an
# echo server on tokio's current-thread runtime. Server on core 0, load on core 1; the servers take
# turns, in an order that rotates from round to round; ratios are taken within each round.
#
#   bench/floor.sh [--quick] [--rounds N] [--secs S]
#
# Writes bench/results/floor.json. Exit code 1 if a floor is not met or an answer was wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=11 secs=4
while [ $# -gt 0 ]; do
    case $1 in
        --quick) rounds=5 secs=2 ;;
        --rounds) rounds=$2; shift ;;
        --secs) secs=$2; shift ;;
        *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done
target=${CARGO_TARGET_DIR:-$PWD/target}
CARGO_TARGET_DIR=$target cargo build --release -q
CARGO_TARGET_DIR=$target/bench cargo build --release -q --manifest-path bench/Cargo.toml
exec python3 bench/floor.py "$target/release/wharf" "$target/bench/release/tokio-echo" "$rounds" "$secs"
