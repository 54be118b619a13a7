#!/usr/bin/env bash
# Memory comes back after peaks: 100 sessions fill their send queues of 8 MiB at `wharf echo`, and leave, five times
# in a row. Each time its resident memory is within 32 MiB of what it was before, within 10 s. On each port.
#
# --quick: 40 sessions, once.
#
# usage: ci/show/memory_comes_back.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"

for backend in uring readiness; do
    start_server "$backend" --workers 1 --send-queue-bytes 8388608
    code=0
    says=$(timeout 300 python3 "$SHOW/peaks.py" "$ADDRESS" "$SERVER_PID" "$(quick_or 40 100)" "$(quick_or 1 5)" 2>&1) ||
        code=$?
    check "$backend: $says" [ "$code" -eq 0 ]
    kill -TERM "$SERVER_PID"
    wait "$SERVER_PID" || true
    forget "$SERVER_PID"
done
finish
