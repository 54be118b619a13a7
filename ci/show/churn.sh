#!/usr/bin/env bash
# Sessions that come and go: 4,000 a second for 60 s on each port (--quick: 1,000 for 8 s), then as many as there can be.
#
#   no error, and every connection that was due was begun
#   opened - closed = live in every stats line of the server
#   resident memory flat after the first 10 s: at no later second more than 256 KiB above it. One
#   byte kept for each session would be 195 KiB by then, one kernel page a second 200 KiB
#
# usage: ci/show/churn.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"

RATE=$(quick_or 1000 4000)
SECS=$(quick_or 8 60)
SETTLE_SECS=$(quick_or 3 10)
FAST_SECS=$(quick_or 3 10)
TOLERANCE_KIB=256

# Samples the server's VmRSS once a second into $SCRATCH/resident, from now until it is ended.
sample_resident() {
    local began=$EPOCHREALTIME
    while kill -0 "$SERVER_PID" 2>/dev/null; do
        printf '%s %s\n' "$(calculate '%.1f' "$EPOCHREALTIME - $began")" "$(resident VmRSS)"
        sleep 1
    done >"$SCRATCH/resident"
}

check_resident() {
    local base worst
    base=$(awk -v settle="$SETTLE_SECS" '$1 >= settle { print $2; exit }' "$SCRATCH/resident")
    worst=$(awk -v settle="$SETTLE_SECS" '$1 >= settle && $2 > worst { worst = $2 }
        END { print worst }' "$SCRATCH/resident")
    note "$1: VmRSS in KiB, a sample a second: $(awk '{ printf "%s ", $2 }' "$SCRATCH/resident")"
    check "$1: VmRSS $base KiB after $SETTLE_SECS s, at most $worst KiB later: \
$((worst - base)) KiB more ($TOLERANCE_KIB allowed)" [ $((worst - base)) -le "$TOLERANCE_KIB" ]
}

check_balance() {
    local lines unbalanced
    read -r lines unbalanced <<<"$(python3 "$SHOW/figures.py" stats "$SERVER_LOG")"
    check "$1: opened - closed = live in $((lines - unbalanced)) of $lines stats lines" \
        holds "$lines >= $2 && $unbalanced == 0"
}

for backend in uring readiness; do
    # The side that closes first keeps its port for a while, and ports are counted for each target.
    # Several addresses are several times as many ports; all of 127.0.0.0/8 is this machine on
    # Linux.
    start_server "$backend" --stats-every 0.5 --listen 127.0.0.2:0 --listen 127.0.0.3:0 \
        --listen 127.0.0.4:0
    targets=()
    for address in "${ADDRESSES[@]}"; do targets+=(--target "$address"); done

    sample_resident &
    sampler=$!
    STARTED+=("$sampler")
    run_load "$backend, $RATE a second for $SECS s" $((SECS + 30)) churn "${targets[@]}" \
        --rate "$RATE" --sessions 1000 --secs "$SECS"
    kill "$sampler"
    wait "$sampler" || true
    forget "$sampler"
    completed=$(load_figure completed)
    check "$backend: $completed of the $((RATE * SECS)) connections that were due" \
        [ "$completed" -eq $((RATE * SECS)) ]
    check_resident "$backend"

    run_load "$backend, as fast as it goes for $FAST_SECS s" $((FAST_SECS + 30)) \
        churn "${targets[@]}" --secs "$FAST_SECS"
    at_the_end=$(resident VmRSS)
    stop_server "$backend"
    check_balance "$backend" $((SECS + FAST_SECS))
    note "$backend: $(load_figure completed_per_s | cut -d. -f1) connections/s, 64 at once, \
the server on all cores beside the load; VmRSS at the end $at_the_end KiB"
done
finish
