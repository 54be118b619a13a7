#!/usr/bin/env bash
# What an idle session costs in user space: 15,000 sessions on one worker, on each port.
#
# Method: the server's RssAnon (the memory that the process itself dirtied; binary and libraries are
# RssFile, what the kernel keeps for a socket is not the process's), read
#   1. fresh, before any session,
#   2. after a warm-up of 8 sessions that push 16 KiB messages, so that every lent buffer and every
#      other part that the worker has once has been touched,
#   3. while the first third of the sessions sits idle: each has echoed once,
#   4. while all of them do.
# A session costs (4 - 3) / the sessions between them: the slope, in which nothing that is there
# once counts. Beside it stands (4 - 1) / all, in which everything counts, the lent buffers too. What
# the slope leaves of (4) is the worker's, and has a bound of its own.
# At the end every session must still answer.
#
# usage: ci/show/idle.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"

SESSIONS=$(quick_or 6000 15000)
FIRST=$((SESSIONS / 3))
SIT_SECS=$(quick_or 8 15)
# A session. Among few, what grows by doubling has more of a part in the slope.
declare -A BYTES_MAX=([uring]=$(quick_or 512 400) [readiness]=$(quick_or 450 300))
WORKER_MIB_MAX=8 # all that is not the sessions'

# One descriptor a session on each side, and a few.
ulimit -S -n "$(ulimit -H -n)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt $((SESSIONS + 100)) ]; then
    cannot "$((SESSIONS + 100)) descriptors are needed, and ulimit -n allows $(ulimit -n)"
fi

# sit SESSIONS: a load that sits idle in the background until its time is over. Adds to LOADS.
sit() {
    local file=$SCRATCH/idle-${#LOADS[@]}
    timeout $((SIT_SECS + 60)) "$WHARF" load idle --target "$ADDRESS" --sessions "$1" \
        --secs "$SIT_SECS" --json "$file.json" >"$file.text" 2>&1 &
    LOADS+=("$!")
    STARTED+=("$!")
}

# The server's newest stats line has so many sessions, and received nothing while it was gathered.
all_idle() {
    [ "$(python3 "$SHOW/figures.py" field "$SERVER_LOG" stats.live)" = "$1" ] &&
        [ "$(python3 "$SHOW/figures.py" field "$SERVER_LOG" stats.per_s.receives)" = 0.0 ]
}

idle_memory() {
    if ! wait_until "$SIT_SECS" all_idle "$1"; then
        fail "$backend: $1 idle sessions did not come about within $SIT_SECS s"
    fi
    check "$backend: $1 idle sessions have 0 bytes in their send queues" \
        [ "$(python3 "$SHOW/figures.py" field "$SERVER_LOG" stats.queued_bytes)" = 0 ]
    MEMORY_KIB=$(resident RssAnon)
}

for backend in uring readiness; do
    start_server "$backend" --workers 1 --stats-every 0.25
    fresh=$(resident RssAnon)
    run_load "$backend, warm-up" 30 echo --target "$ADDRESS" --sessions 8 --bytes 16384 \
        --depth 4 --secs 1
    warm=$(resident RssAnon)

    LOADS=()
    sit "$FIRST"
    idle_memory "$FIRST"
    some=$MEMORY_KIB
    sit $((SESSIONS - FIRST))
    idle_memory "$SESSIONS"
    all=$MEMORY_KIB

    for index in "${!LOADS[@]}"; do
        code=0
        wait "${LOADS[index]}" || code=$?
        forget "${LOADS[index]}"
        figures=$(python3 "$SHOW/figures.py" load "$SCRATCH/idle-$index.json" ||
            cat "$SCRATCH/idle-$index.text")
        check "$backend, after sitting: $figures" [ "$code" -eq 0 ]
    done
    after=$(resident RssAnon)
    stop_server "$backend"

    slope=$(calculate '%.0f' "($all - $some) * 1024 / $((SESSIONS - FIRST))")
    whole=$(calculate '%.0f' "($all - $fresh) * 1024 / $SESSIONS")
    note "$backend: RssAnon in KiB: fresh $fresh, warm $warm, $FIRST idle $some, $SESSIONS idle \
$all, after all have gone $after"
    worker_mib=$(calculate '%.1f' "($all * 1024 - $slope * $SESSIONS) / 1048576")
    max=${BYTES_MAX[$backend]}
    check "$backend: $slope bytes for each idle session, at most $max ($whole if all the worker's own \
memory is divided among them)" holds "$slope <= $max && $slope > 0"
    check "$backend: $worker_mib MiB besides, for the worker and the process; at most $WORKER_MIB_MAX" \
        holds "$worker_mib <= $WORKER_MIB_MAX"
done
finish
