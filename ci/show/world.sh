#!/usr/bin/env bash
# The `world` example: a world in a loop of its own, 30 times a second. On each port:
#
# 1. One player with bare sockets: logins, pings, five lines in five seconds, a kick whose reason arrives, a session that
#    is taken over, an avatar that waits for its player, heartbeats after 5 s, an end after 15 s of silence.
# 2. 2,000 bots, of which 200 read a tenth of the positions. In every second phase 200 guests a second log in, for which
#    the database takes 20 ms each, and leave. No session is closed, each ping and each line comes back, and tick n is
#    due at the start + n periods. In the full version (5 minutes on each port) none is skipped, and:
#    - p99 of how late a tick comes is at most 1 ms more than that of a thread in the same process which only ticks;
#    - what a slow bot reads is at most 2 ticks older than what the others read, beside what its socket makes it. How old
#      it is: the newest tick that any bot has read by then, less the tick of these positions; p99 of each bot. What its
#      socket makes it: the most bytes that the kernel held of that session, at both ends, by /proc/net/tcp once a
#      second, divided by how many bytes the bot reads in a tick; and as many ticks as it takes to read the heap of 16 KiB
#      that the kernel takes at once, because one frame waits in the send queue until then. (From the second third of the
#      time on, when its socket is full; the median of the bots.)
#    - p99 of the bots' pings while guests log in is at most 1.2 times what it is without them (in turns, the median).
#
# The server is on core 0 with one worker, the bots on core 1. --quick does less of it and judges no time.
#
# usage: ci/show/world.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need taskset
build_examples

BOTS=2000
BACKENDS=${BACKENDS:-uring readiness} # BACKENDS=uring in the environment does only that one
SECS=$(quick_or 4 300)
PHASE_SECS=$(quick_or 2 15)
SERVER_PREFIX=(taskset -c 0)
export WORKERS=1

# Asserted in the full version, said in the quick one: in_full CONDITION TEXT
in_full() { if [ "$QUICK" -eq 1 ]; then note "$2"; else check "$2" holds "$1"; fi; }
served() { python3 "$SHOW/figures.py" field "$SERVED" "world.$1"; }
of() { python3 "$SHOW/figures.py" field "$SCRATCH/bots" "$1"; }

# one_player: in the background, with a server of its own. Sets PLAYER, its process.
one_player() {
    start_example "$backend" world serve 127.0.0.1:0
    PLAYER_SERVER=$SERVER_PID
    # shellcheck disable=SC2046 # a word or nothing
    timeout 120 python3 "$SHOW/world.py" "$ADDRESS" $(quick_or '' --long) >"$SCRATCH/player" 2>&1 &
    PLAYER=$!
    STARTED+=("$PLAYER")
}

one_player_is_done() {
    local code=0
    wait "$PLAYER" || code=$?
    forget "$PLAYER"
    check "$backend: $(tail -n 1 "$SCRATCH/player")" [ "$code" -eq 0 ]
    if [ "$code" -ne 0 ]; then sed 's/^/        /' "$SCRATCH/player"; fi
    SERVER_PID=$PLAYER_SERVER
    stop_example "$backend"
}

crowd() {
    local code=0 left
    SERVED=$SCRATCH/served
    rm -f "$SERVED" "$SCRATCH/bots"
    start_example "$backend" world serve 127.0.0.1:0 --json "$SERVED"
    timeout $((SECS + 120)) taskset -c 1 "$TARGET_DIR/release/examples/world" bots "$ADDRESS" --count "$BOTS" \
        --slow 10 --secs "$SECS" --phase-secs "$PHASE_SECS" --json "$SCRATCH/bots" >"$SCRATCH/bots.log" 2>&1 || code=$?
    if [ ! -s "$SCRATCH/bots" ]; then
        fail "$backend: the bots ended with exit code $code: $(tail -n 3 "$SCRATCH/bots.log")"
        finish
    fi
    stop_example "$backend" # it writes no more
    check "$backend: $(of bots.logged_in) of $BOTS bots and $(of bots.guests_in) guests logged in; $(of bots.ended) sessions \
were closed, $(served slow) as slow" \
        [ "$(of bots.logged_in) $(of bots.ended) $(served slow)" = "$BOTS 0 0" ]
    check "$backend: $(of bots.pongs) of $(of bots.pings) pings and $(of bots.heard) of $(of bots.said) lines came back, \
$(of bots.refused) were refused, $(of bots.disorders) of $(of bots.positions) positions came out of order" \
        holds "$(of bots.pongs) == $(of bots.pings) && $(of bots.heard) + $(of bots.refused) == $(of bots.said) && \
$(of bots.disorders) == 0 && $code == 0"
    check "$backend: after $(served due) ticks the drift is $(served drift_us) us" holds "$(served drift_us) < 1000"
    in_full "$(served skipped) == 0 && $(served ticks) == $(served due)" \
        "$backend: $(served ticks) ticks came of $(served due), $(served skipped) were skipped"
    in_full "$(served late_us) <= $(served idle_late_us) + 1000" "$backend: p99 of how late they came is \
$(served late_us) us (at most 1 ms more than $(served idle_late_us) us of a thread that does nothing)"
    left=$(of slow.left_ticks_of_p99)
    in_full "$left <= $(of bots.age_ticks_p99) + 2 + $(of slow.heap_ticks)" "$backend: positions that slow bots read have a p99 of \
$(of slow.age_ticks_p99) ticks, of which $left are not what lay in their sockets ($(of slow.held_bytes_p50) bytes lay there, at most \
$(of slow.held_bytes_max)); at most 2 more than the $(of bots.age_ticks_p99) of the others and the $(of slow.heap_ticks) of a heap"
    in_full "$(of bots.ratio) <= 1.2" "$backend: p99 of pings is $(of bots.ratio) times what it is without logins (at most 1.2; \
us: $(of bots.with_us), and $(of bots.without_us) without)"
}

for backend in $BACKENDS; do
    one_player
    if [ "$QUICK" -eq 0 ]; then one_player_is_done; fi
    crowd
    if [ "$QUICK" -eq 1 ]; then one_player_is_done; fi
done
finish
