#!/usr/bin/env bash
# The echo server on each port, driven by `wharf load` and by programs that nobody here wrote.
#
#   1,000 sessions for 20 s, every byte verified
#   1 GiB through socat and through ncat, compared by hash (they half-close when all is sent)
#   64 MiB through a client that reads 1 KiB at a time with pauses, compared by hash
#
# usage: ci/show/echo.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need socat ncat sha256sum

SECS=$(quick_or 3 20)
BULK_BYTES=$(quick_or $((64 << 20)) $((1 << 30)))
SLOW_BYTES=$(quick_or $((16 << 20)) $((64 << 20))) # more than the kernel holds of it

# The one way to say to either: end your writing side at the end of the input, then read on until
# the server ends its own. ncat does so by default; socat gives up after 0.5 s unless told.
push_with_socat() { timeout 300 socat -t 60 - "TCP:$ADDRESS"; }
push_with_ncat() { timeout 300 ncat "${ADDRESS%:*}" "${ADDRESS##*:}"; }

# push LABEL COMMAND
push() {
    local began=$EPOCHREALTIME code=0 sent received took
    received=$(python3 "$SHOW/stream.py" generate "$BULK_BYTES" 2>"$SCRATCH/sent" | "$2" |
        sha256sum) || code=$?
    took=$(calculate '%.1f' "$EPOCHREALTIME - $began")
    sent=$(tail -n 1 "$SCRATCH/sent")
    check "$1: $((BULK_BYTES >> 20)) MiB came back in $took s, SHA-256 ${received:0:16}…, sent \
${sent:0:16}…, exit code $code" [ "0 $sent" = "$code ${received%% *}" ]
}

for backend in uring readiness; do
    start_server "$backend" --stats-every 1
    run_load "$backend" $((SECS + 30)) echo --target "$ADDRESS" \
        --sessions 1000 --bytes 64 --depth 1 --secs "$SECS"
    push "$backend, socat" push_with_socat
    push "$backend, ncat" push_with_ncat
    stop_server "$backend"

    start_server "$backend" --stats-every 1 # a new one, whose pauses are the slow reader's
    code=0
    text=$(timeout 120 python3 "$SHOW/stream.py" slow "$ADDRESS" "$SLOW_BYTES" 10 2>&1) || code=$?
    check "$backend, slow reader: $text" [ "$code" -eq 0 ]
    stop_server "$backend, slow reader" # its last stats line has the rest
    pauses=$(python3 "$SHOW/figures.py" field "$SERVER_LOG" stats.receive_pauses)
    check "$backend: receiving was paused $pauses times, so the slow reader was held back" \
        [ "$pauses" -gt 0 ]
done
finish
