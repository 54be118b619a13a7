#!/usr/bin/env bash
# Is wharf as fast as it was? Builds it of another commit and of this tree, and measures both in pairs, on
# io_uring and on readiness, until the 95 % interval of the median ratio is within 1 % of it.
#
#   bench/before.sh COMMIT [WORKLOADS] [--rounds-max N] [--secs S] [--json FILE]
#
# WORKLOADS are names with commas between them. Exit codes: 0, all as before; 1, something is slower, or has no
# figure; 2, it could not be measured.
set -euo pipefail
cd "$(dirname "$0")"

[ $# -ge 1 ] || { sed -n '5p' "$0" >&2; exit 2; }
before=$(./build_before.sh "$1") || exit 2
shift
workloads=()
case ${1-} in
'' | --*) ;;
*) workloads=(--workloads "$1") && shift ;;
esac
exec cargo run --release --quiet --locked -- --before "$before" "${workloads[@]}" "$@"
