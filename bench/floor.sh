#!/usr/bin/env bash
# The speed floor: CPU time of the server for each message, 64 B echoed at 1,000 sessions, against an
# echo server on tokio's current-thread runtime. It is one workload of the comparison: README.md.
#
#   bench/floor.sh [--quick] [--rounds N] [--secs S]
#
# Writes bench/results/floor.json. Exit code 1 if a floor is not met or an answer was wrong.
set -euo pipefail
cd "$(dirname "$0")"
exec cargo run --release --quiet --locked -- --floor "$@"
