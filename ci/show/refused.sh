#!/usr/bin/env bash
# Where io_uring is refused: `auto` serves on the readiness port and says why; `uring` ends with
# exit code 2 and a message that names the cause and the remedy.
#
#   ci/show/refused.sh [--quick]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need prlimit setpriv

SECS=$(quick_or 1 5)

# serves_anyway LABEL WORDS: with --backend auto, under SERVER_PREFIX.
serves_anyway() {
    local label=$1 words=$2
    start_server auto
    local why
    why=$(grep '"listening"' "$SERVER_LOG")
    check "$label: auto serves on readiness" grep -q 'readiness (no io_uring' <<<"$why"
    check "$label: and says why ($words)" grep -q -- "$words" <<<"$why"
    run_load "$label" 60 echo --target "$ADDRESS" --sessions 100 --secs "$SECS"
    stop_server "$label"
}

# is_refused LABEL WORDS...: with --backend uring, under SERVER_PREFIX.
is_refused() {
    local label=$1 code=0 words said
    shift
    said=$(timeout 10 "${SERVER_PREFIX[@]}" "$WHARF" echo --listen 127.0.0.1:0 --backend uring 2>&1) || code=$?
    check "$label: uring ends with exit code 2 (it was $code)" [ "$code" -eq 2 ]
    for words in "$@"; do
        check "$label: the message says '$words'" grep -q -- "$words" <<<"$said"
    done
    note "$said"
}

for error in EPERM ENOSYS; do
    SERVER_PREFIX=(python3 "$SHOW/refuse.py" "$error")
    label="io_uring_setup gives $error"
    serves_anyway "$label" "$error"
    is_refused "$label" "$error" "readiness backend"
done

# Without the right to lock memory, a user's locked memory is limited. Not every kernel counts rings
# against it, so this asks the kernel first what it does.
SERVER_PREFIX=(prlimit --memlock=65536:65536)
if [ "$(id -u)" -eq 0 ]; then
    # Another user must be able to run it.
    chmod 711 "$SCRATCH"
    cp "$WHARF" "$SCRATCH/wharf" && chmod 755 "$SCRATCH/wharf"
    WHARF=$SCRATCH/wharf
    SERVER_PREFIX+=(setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all --inh-caps -all)
fi
label="64 KiB of locked memory"
start_server auto
if grep -q 'readiness (no io_uring' "$SERVER_LOG"; then
    stop_server "$label"
    serves_anyway "$label" "ENOMEM"
    is_refused "$label" "ENOMEM" "ulimit -l" "readiness backend"
else
    pass "$label: this kernel grants io_uring all the same, and auto takes it"
    note "$(grep '"listening"' "$SERVER_LOG")"
    run_load "$label" 60 echo --target "$ADDRESS" --sessions 100 --secs "$SECS"
    stop_server "$label"
fi

SERVER_PREFIX=(env WHARF_BACKEND=readiness)
start_server auto
check "WHARF_BACKEND=readiness is heeded" grep -q 'readiness (asked for)' "$SERVER_LOG"
stop_server "WHARF_BACKEND=readiness"
code=0
said=$(WHARF_BACKEND=nonsense timeout 10 "$WHARF" echo --listen 127.0.0.1:0 2>&1) || code=$?
check "WHARF_BACKEND=nonsense ends with exit code 2: $said" [ "$code" -eq 2 ]
finish
