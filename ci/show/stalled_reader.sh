#!/usr/bin/env bash
# Readers that never read, and one that floods; and what the others on the same worker notice of it.
#
# 1. Clients flood `wharf echo` and never read. They are held back; the server's memory stays within
#    what it announced, and grows by no more than the clients' queues may hold; when they read at
#    last, every byte is there.
# 2. Clients ask the `ticker` example for what it pushes, and never read it: they end as slow
#    consumers.
#
# 3. A client floods `wharf echo` with frames of one byte, and reads what comes back.
#
# In each, on each port: p99 of 1,000 other sessions on the same worker with those clients and
# without, in turns (A B A B). The server is on core 0, load and clients on core 1. At most 2 times
# in the full version, 1.5 times beside the flood; --quick only says what it saw, for no test asserts a
# time.
#
# usage: ci/show/stalled_reader.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need taskset

ROUNDS=$(quick_or 3 5)
SECS=$(quick_or 1 3)
STALLED=8
RATIO_MAX=2
FRAMING=raw
SERVER_PREFIX=(taskset -c 0)
LOAD_PREFIX=(taskset -c 1)

median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# p99 LABEL: of 1,000 sessions on ADDRESS, in microseconds, into P99.
p99() {
    run_load "$1" 60 echo --target "$ADDRESS" --sessions 1000 --bytes 64 --secs "$SECS" \
        --framing "$FRAMING" >"$SCRATCH/p99.text"
    if grep -q FAILED "$SCRATCH/p99.text"; then cat "$SCRATCH/p99.text"; fi
    P99=$(load_figure latency_us.p99)
}

# start_clients MODE COUNT [NICE]: into CLIENTS_PID. What they need of the core is not to be the load's loss.
start_clients() {
    : >"$SCRATCH/clients" # of the last ones
    taskset -c 1 nice -n "${3:-0}" python3 "$SHOW/stream.py" "$1" "$ADDRESS" "$2" >"$SCRATCH/clients" 2>&1 &
    CLIENTS_PID=$!
    STARTED+=("$CLIENTS_PID")
}

held_back() { grep -q 'held back' "$SCRATCH/clients"; }

floods() { grep -q 'has begun' "$SCRATCH/clients"; }

told() { note "$1"; }

compare() { # LABEL: from the arrays WITHOUT and WITH
    local ratios=() round
    for round in "${!WITH[@]}"; do
        ratios+=("$(calculate %.2f "${WITH[round]} / ${WITHOUT[round]}")")
    done
    local ratio
    ratio=$(median "${ratios[@]}")
    local says=check
    if [ "$QUICK" -eq 1 ]; then says=told; fi
    $says "$1: p99 of 1,000 others $(calculate %.1f "$(median "${WITH[@]}") / 1000") ms with, \
$(calculate %.1f "$(median "${WITHOUT[@]}") / 1000") ms without (medians of $ROUNDS); ratio $ratio \
(rounds: ${ratios[*]}; at most $RATIO_MAX)" holds "$ratio <= $RATIO_MAX"
}

# in_turns LABEL BEGUN THEN MODE COUNT [NICE]: p99 without such clients and with them, ROUNDS times, into WITHOUT
# and WITH. BEGUN holds when the clients are at it; THEN is called before they are told to end.
in_turns() {
    local label=$1 begun=$2 then=$3 round code
    shift 3
    WITHOUT=() WITH=()
    for ((round = 1; round <= ROUNDS; round++)); do
        p99 "$label, round $round without"
        WITHOUT+=("$P99")
        start_clients "$@"
        wait_until 20 "$begun" || fail "$label, round $round: the clients did not come so far: $begun"
        p99 "$label, round $round with"
        WITH+=("$P99")
        "$then" "$round"
        kill -TERM "$CLIENTS_PID"
        code=0
        wait "$CLIENTS_PID" || code=$?
        forget "$CLIENTS_PID"
        [ "$code" -eq 0 ] || fail "$label, round $round: $(cat "$SCRATCH/clients")"
    done
}

look_at_memory() {
    local now
    now=$(resident VmRSS)
    if [ "$now" -gt "$peak" ]; then peak=$now; fi
}
for backend in uring readiness; do
    label="$backend, echo"
    start_server "$backend" --workers 1
    p99 "$label, warm-up"
    before=$(resident VmRSS) peak=0
    in_turns "$label" held_back look_at_memory stalled "$STALLED"
    pass "$label: $(tail -n 1 "$SCRATCH/clients")"
    compare "$label"
    # A client's send queue (256 KiB and its pieces' slack), and what one batch had brought.
    bound=$((STALLED * (256 + 128 + 2 * 4096)))
    check "$label: memory grew by $((peak - before)) KiB for $STALLED such clients (at most $bound)" \
        [ $((peak - before)) -le "$bound" ]
    stop_server "$label"
done

build_examples
have_ended() { [ "$(grep -c 'ended: slow consumer' "$SCRATCH/ticker")" -ge "$1" ]; }
wait_for_ends() { wait_until 20 have_ended $(($1 * STALLED)) || true; }
ticker_listens() { grep -q 'listening on' "$SCRATCH/ticker"; }
for backend in uring readiness; do
    label="$backend, ticker"
    : >"$SCRATCH/ticker" # of the last one
    WHARF_BACKEND=$backend "${SERVER_PREFIX[@]}" "$TARGET_DIR/release/examples/ticker" 127.0.0.1:0 >"$SCRATCH/ticker" &
    ticker=$!
    STARTED+=("$ticker")
    wait_until 10 ticker_listens || cannot "the ticker did not start"
    ADDRESS=$(awk '/^listening on/ { sub(";", "", $3); print $3; exit }' "$SCRATCH/ticker")
    p99 "$label, warm-up"
    in_turns "$label" true wait_for_ends deaf "$STALLED"
    compare "$label"
    ended=$(grep -c 'ended: slow consumer' "$SCRATCH/ticker" || true)
    check "$label: $ended of $((ROUNDS * STALLED)) ended as slow consumers" \
        [ "$ended" -eq $((ROUNDS * STALLED)) ]
    note "$(grep -m 1 'ended' "$SCRATCH/ticker" || true)"
    kill -TERM "$ticker"
    wait "$ticker" 2>/dev/null || true
    forget "$ticker"
done
# A handler that is given all that has come of the flood at once would let the others wait for thousands
# of frames.
FRAMING=length RATIO_MAX=1.5
for backend in uring readiness; do
    label="$backend, flood"
    start_server "$backend" --workers 1 --framing length
    p99 "$label, warm-up"
    in_turns "$label" floods true flooding 1 19
    note "$label: $(tail -n 1 "$SCRATCH/clients")"
    compare "$label"
    stop_server "$label"
done
finish
