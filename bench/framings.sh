#!/usr/bin/env bash
# What a framing costs: instructions of the server's user-space code for each message of 64 B that `wharf echo` sends
# back, counted by callgrind as `instructions.sh` does: the difference of a long and a short run, by that of their
# messages; the median of three. 50 sessions, one message in flight each.
#
#   bench/framings.sh
#
# Exit codes: 0; 2, it could not be counted.
set -euo pipefail
cd "$(dirname "$0")/.."
for needed in valgrind cc; do
    if ! command -v "$needed" >/dev/null; then
        echo "$needed is missing (apt-get install valgrind gcc libc6-dev)" >&2
        exit 2
    fi
done
cargo build --release --quiet --locked -p wharf-cli || exit 2
WHARF=${CARGO_TARGET_DIR:-target}/release/wharf
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/wharf-framings.XXXXXX")
SERVER=
clean_up() {
    [ -z "$SERVER" ] || kill -KILL "$SERVER" 2>/dev/null || true
    rm -rf "$SCRATCH"
}
trap clean_up EXIT
trap 'exit 2' INT TERM
cc -std=gnu11 -O2 -shared -fPIC -o "$SCRATCH/ring_wait.so" bench/ring_wait.c -ldl || exit 2

give_up() {
    cat "$1" >&2
    exit 2
}

# count BACKEND FRAMING SECS: sets COUNTED, "instructions messages", of one run.
count() {
    local address='' deadline=$((SECONDS + 60)) instructions messages
    rm -f "$SCRATCH/said"
    LD_PRELOAD=$SCRATCH/ring_wait.so valgrind --tool=callgrind --fair-sched=try \
        --callgrind-out-file=/dev/null "$WHARF" echo --listen 127.0.0.1:0 --workers 1 --stats-every 0 \
        --backend "$1" --framing "$2" >"$SCRATCH/said" 2>"$SCRATCH/server" &
    SERVER=$!
    until address=$(grep -soE '127\.0\.0\.1:[0-9]+' "$SCRATCH/said"); do
        [ "$SECONDS" -lt "$deadline" ] || give_up "$SCRATCH/server"
        sleep 0.05
    done
    timeout 120 "$WHARF" load echo --target "$address" --framing "$2" --sessions 50 --bytes 64 --secs "$3" \
        --json "$SCRATCH/load" >/dev/null 2>"$SCRATCH/load.said" || give_up "$SCRATCH/load.said"
    kill -TERM "$SERVER"
    wait "$SERVER" 2>/dev/null || true
    SERVER=
    instructions=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$SCRATCH/server")
    messages=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["completed"])' "$SCRATCH/load")
    [ -n "$instructions" ] && [ -n "$messages" ] || give_up "$SCRATCH/server"
    COUNTED="$instructions $messages"
}

each() { # BACKEND FRAMING: sets EACH
    local short
    count "$1" "$2" 1
    short=$COUNTED
    count "$1" "$2" 4
    EACH=$(awk '{ printf "%.1f", ($3 - $1) / ($4 - $2) }' <<<"$short $COUNTED")
}

printf '%-10s %-8s %14s %12s\n' port framing instructions 'by length'
for backend in uring readiness; do
    declare -A MEDIAN=()
    for framing in length raw lines varint; do
        counted=()
        for _ in 1 2 3; do
            each "$backend" "$framing"
            counted+=("$EACH")
        done
        MEDIAN[$framing]=$(printf '%s\n' "${counted[@]}" | sort -g | sed -n 2p)
        ratio=$(awk '{ printf "%.3f", $1 / $2 }' <<<"${MEDIAN[$framing]} ${MEDIAN[length]}")
        printf '%-10s %-8s %14s %12s\n' "$backend" "$framing" "${MEDIAN[$framing]}" "$ratio"
    done
done
