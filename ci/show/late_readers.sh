#!/usr/bin/env bash
# Readers that are late: they ask for much at once, and begin to read a second later.
#
# The `replies` example answers with the default send queue of 256 KiB. A reply of 1 MB is larger, so it leaves in
# frames, from `received` as far as there is room and then from `writable`. On each port:
#
# 1. One session asks for 1,500 replies of 1 MB (64 frames of 15,625 bytes).
# 2. 100 sessions ask for 15 of them each.
# 3. One session asks for 100 replies of 10 kB, and one for 5,000 frames of 40 bytes, which one callback sends.
#
# Every byte must come: all are compared. While one session reads, the server's memory may peak (VmHWM) at most
# 32 MiB above what it has at rest (VmRSS). While 100 read, the bound is 100 times what the server announces for a
# session with a full send queue.
#
# usage: ci/show/late_readers.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
build_examples

REPLIES=$(quick_or 200 1500)
EACH=$(quick_or 2 15)
LATE_S=$(quick_or 0.5 1)

# reads SESSIONS REQUESTS FRAMES BYTES
reads() {
    local says code=0
    says=$(timeout 300 python3 "$SHOW/replies.py" "$ADDRESS" "$@" "$LATE_S" 2>&1) || code=$?
    check "$backend: $says" [ "$code" -eq 0 ]
}

above_rest() { # LABEL KIB_MAX
    local peak
    peak=$(resident VmHWM)
    check "$backend, $1: memory peaked $((peak - rest)) KiB above rest (at most $2)" \
        [ $((peak - rest)) -le "$2" ]
}

for backend in uring readiness; do
    start_example "$backend" replies 127.0.0.1:0
    rest=$(resident VmRSS)
    session_kib_max=$(awk '/^at most/ { print int($3 / 1024) }' "$SERVER_LOG")
    reads 1 100 1 10000
    reads 1 1 5000 40
    reads 1 "$REPLIES" 64 15625
    above_rest "one late reader" $((32 * 1024))
    reads 100 "$EACH" 64 15625
    above_rest "100 late readers" $((100 * session_kib_max))
    stop_example "$backend"
done
finish
