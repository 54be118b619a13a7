#!/usr/bin/env bash
# The `gateway` example between clients and a target, on each port, with one worker:
#
# 1. 1 GiB up, down, and both at once: every byte is compared. The gateway's CPU time for each byte stands beside
#    that of socat, with its own buffers of 8 KiB and with 64 KiB, in turns; proxies on core 0, both ends on core 1.
#    At most 1.1 times socat's own in the full version.
# 2. Of one session the target does not read for 30 s, of another the client, while the other ends send. The
#    gateway's memory (RssAnon) grows by at most the four send queues of 256 KiB and, once, what a worker lends to receives:
#    256 buffers of 16 KiB. p99 of the round trips of a third session beside those two and without them, in turns:
#    at most 1.5 times in the full version.
# 3. 1,000 random sessions; in each, the client finishes its direction first, or the target, or neither waits. No
#    byte is missing, each session ends well at both ends, and the gateway's descriptors are what they were.
#
# --quick does less of each and asserts no time.
#
# usage: ci/show/gateway.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need taskset socat
build_examples

ROUNDS=$(quick_or 1 5)
MIB=$(quick_or 64 1024)
STOPPED_S=$(quick_or 5 30)
LATENCY_ROUNDS=$(quick_or 1 7)
LATENCY_S=$(quick_or 1 3)
PAIRS=$(quick_or 100 1000)
GROWTH_KIB_MAX=$((4 * 256 + 256 * 16))
SERVER_PREFIX=(taskset -c 0)
export WORKERS=1

ends() { taskset -c 1 python3 "$SHOW/gateway.py" "$@"; }
median() { python3 "$SHOW/figures.py" median "$@"; }
# Asserted in the full version, said in the quick one: in_full CONDITION TEXT
in_full() { if [ "$QUICK" -eq 1 ]; then note "$2"; else check "$2" holds "$1"; fi; }

target_listens() { grep -q '^listening on' "$TARGET_LOG"; }
socat_listens() { grep -q 'listening on' "$SERVER_LOG"; }
# The CPU time of a process and of its children that have ended, in ms.
cpu_ms() { awk -v hz="$(getconf CLK_TCK)" '{ print ($14 + $15 + $16 + $17) * 1000 / hz }' "/proc/$1/stat"; }
has_no_children() { [ -z "$(cat "/proc/$1/task/$1/children")" ]; }
stands_still() { # the gateway, for 0.2 s
    local before
    before=$(cpu_ms "$SERVER_PID")
    sleep 0.2
    [ "$(cpu_ms "$SERVER_PID")" = "$before" ]
}
descriptors() { find "/proc/$SERVER_PID/fd" -type l | wc -l; }
descriptors_are() { [ "$(descriptors)" -eq "$1" ]; }
ended_well() { [ "$(grep -c '^ended well' "$TARGET_LOG")" -ge "$1" ]; }

TARGET_LOG=$SCRATCH/target
taskset -c 1 python3 "$SHOW/gateway.py" target >"$TARGET_LOG" 2>&1 &
TARGET_PID=$!
STARTED+=("$TARGET_PID")
wait_until 10 target_listens || cannot "the target did not start: $(cat "$TARGET_LOG")"
TARGET=$(awk '/^listening on/ { print $3 }' "$TARGET_LOG")

# --- Bytes, and what they cost ------------------------------------------------------------------

# start_proxy NAME: sets PID and AT
start_proxy() {
    case $1 in
        socat*)
            SERVER_LOG=$SCRATCH/$1
            : >"$SERVER_LOG"
            "${SERVER_PREFIX[@]}" socat -d -d -t 60 -b "${1#socat-}" \
                TCP-LISTEN:0,bind=127.0.0.1,fork TCP:"$TARGET" 2>"$SERVER_LOG" &
            PID=$!
            STARTED+=("$PID")
            wait_until 10 socat_listens || cannot "socat did not start: $(cat "$SERVER_LOG")"
            AT=127.0.0.1:$(awk -F: '/listening on/ { print $NF; exit }' "$SERVER_LOG")
            ;;
        *)
            start_example "$1" gateway 127.0.0.1:0 "$TARGET"
            PID=$SERVER_PID AT=$ADDRESS
            ;;
    esac
}

declare -A PIDS ATS COST RATE # of each proxy; and its rounds' ns for each byte and MB/s, for each way
PROXIES=(uring socat-8192 readiness socat-65536)
for proxy in "${PROXIES[@]}"; do
    start_proxy "$proxy"
    PIDS[$proxy]=$PID ATS[$proxy]=$AT
done

# report PROXY WAY
# shellcheck disable=SC2086 # lists of rounds
report() {
    local cost own large ratio
    cost=$(median ${COST[$1,$2]})
    local text="$1, $MIB MiB $2: $(median ${RATE[$1,$2]}) MB/s, $(calculate %.3f "$cost") ns of CPU for each byte"
    case $1 in
        socat*) note "$text" ;;
        *)
            own=$(median ${COST[socat-8192,$2]}) large=$(median ${COST[socat-65536,$2]})
            ratio=$(calculate %.2f "$cost / $own")
            in_full "$ratio <= 1.1" "$text, $ratio times socat's (at most 1.1; of socat -b 65536 \
$(calculate %.2f "$cost / $large"); medians of $ROUNDS)"
            ;;
    esac
}

for way in up down both; do
    mib=$MIB
    if [ $way = both ]; then mib=$((2 * MIB)); fi
    for ((round = 1; round <= ROUNDS; round++)); do
        for proxy in "${PROXIES[@]}"; do
            before=$(cpu_ms "${PIDS[$proxy]}")
            if ! rate=$(ends transfer "${ATS[$proxy]}" "$way" $((MIB * 1048576)) 2>"$SCRATCH/wrong"); then
                fail "$proxy, $MIB MiB $way: $(cat "$SCRATCH/wrong")"
                finish # there are no figures without it
            fi
            RATE[$proxy,$way]+=" $rate"
            wait_until 10 has_no_children "${PIDS[$proxy]}" || fail "$proxy: it has a child left"
            after=$(cpu_ms "${PIDS[$proxy]}")
            COST[$proxy,$way]+=" $(calculate %.4f "($after - $before) * 1e6 / ($mib * 1048576)")"
        done
    done
    for proxy in "${PROXIES[@]}"; do report "$proxy" "$way"; done
done
for proxy in "${PROXIES[@]}"; do
    kill -TERM "${PIDS[$proxy]}"
    wait "${PIDS[$proxy]}" 2>/dev/null || true
    forget "${PIDS[$proxy]}"
done
sessions=$((${#PROXIES[@]} * 3 * ROUNDS))
wait_until 10 ended_well "$sessions" || true
check "$(grep -c '^ended well' "$TARGET_LOG") of $sessions sessions had every byte at the target too" \
    ended_well "$sessions"

# --- An end that does not read, and many sessions -------------------------------------------------

# stop_ends SECONDS: one session whose target does not read, and one whose client does not, in the background.
stop_ends() {
    local end
    STOPPED=()
    for end in target client; do
        ends stopped "$ADDRESS" "$end" $((64 * 1048576)) "$1" >"$SCRATCH/stopped-$end" 2>&1 &
        STOPPED+=("$!")
        STARTED+=("$!")
    done
    wait_until 10 stands_still || fail "$backend: the gateway never stood still"
}

# Waits until both have read all at last. Sets PEAK, the most memory seen.
wait_for_stopped() {
    local pid now
    while kill -0 "${STOPPED[@]}" 2>/dev/null; do
        now=$(resident RssAnon)
        if [ "$now" -gt "$PEAK" ]; then PEAK=$now; fi
        sleep 0.1
    done
    for pid in "${STOPPED[@]}"; do
        wait "$pid" || fail "$backend: an end that did not read for a while: $(cat "$SCRATCH"/stopped-*)"
        forget "$pid"
        sessions=$((sessions + 1))
    done
}

p99() {
    if ! P99=$(ends latency "$ADDRESS" "$LATENCY_S" 2>"$SCRATCH/wrong"); then
        fail "$backend: no round trips: $(cat "$SCRATCH/wrong")"
        finish
    fi
    sessions=$((sessions + 1))
}

for backend in uring readiness; do
    start_example "$backend" gateway 127.0.0.1:0 "$TARGET"
    ends transfer "$ADDRESS" both $((32 * 1048576)) >/dev/null || fail "$backend: the warm-up"
    sessions=$((sessions + 1))
    rest=$(resident RssAnon) descriptors=$(descriptors) ratios=() PEAK=0
    for ((round = 1; round <= LATENCY_ROUNDS; round++)); do
        p99
        without=$P99
        stop_ends "$([ "$round" -eq 1 ] && echo "$STOPPED_S" || echo $((LATENCY_S + 3)))"
        p99
        ratios+=("$(calculate %.2f "$P99 / $without")")
        wait_for_stopped
    done
    check "$backend: two sessions had an end that did not read for $STOPPED_S s; memory grew by \
$((PEAK - rest)) KiB (at most $GROWTH_KIB_MAX)" [ $((PEAK - rest)) -le "$GROWTH_KIB_MAX" ]
    ratio=$(median "${ratios[@]}")
    in_full "$ratio <= 1.5" "$backend, beside those two: p99 of another session's round trips $ratio times what it \
is without (rounds: ${ratios[*]}; at most 1.5); at last $P99 µs and $without µs"
    code=0
    says=$(ends pairs "$ADDRESS" "$PAIRS" "$RANDOM" 2>&1) || code=$?
    check "$backend: $says" [ "$code" -eq 0 ]
    sessions=$((sessions + PAIRS))
    wait_until 10 ended_well "$sessions" || true
    check "$backend: $(grep -c '^ended well' "$TARGET_LOG") of $sessions sessions so far ended well at the target" \
        ended_well "$sessions"
    wait_until 10 descriptors_are "$descriptors" || true
    check "$backend: $(descriptors) descriptors, $descriptors at rest" descriptors_are "$descriptors"
    check "$backend: the gateway says nothing: $(grep -cv '^listening' "$SERVER_LOG" || true) lines" \
        [ "$(wc -l <"$SERVER_LOG")" -eq 1 ]
    stop_example "$backend"
done
kill -TERM "$TARGET_PID"
wait "$TARGET_PID" 2>/dev/null || true
forget "$TARGET_PID"
if grep -q WRONG "$TARGET_LOG"; then fail "the target: $(grep -m 3 WRONG "$TARGET_LOG")"; fi
finish
