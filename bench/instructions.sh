#!/usr/bin/env bash
# Instructions of the server's user-space code for each operation, counted by callgrind. Two runs of each, a short
# one and a long one: the difference of their instructions, divided by that of their operations, so that neither
# start-up nor the coming and going of sessions counts. On io_uring with `ring_wait.c` under it. How many frames
# share a turn differs from run to run, so beside another commit the median of three turns counts. `send-2` is
# shown and not judged: it follows from when valgrind lets which thread run.
# `ws-plain` is `ws` without the WebSocket: what one costs is the difference.
# Under callgrind most turns would be long, and their callbacks measured: `--no-long-turns`.
#
#   bench/instructions.sh [BINARY]            of this tree's server, or of this one
#   bench/instructions.sh --before COMMIT     of that commit's and this tree's, and the ratio
#
# Exit codes: 0; 1, a ratio is above 1.01; 2, it could not be counted.
set -euo pipefail
cd "$(dirname "$0")"

RATIO_MAX=1.01
for needed in valgrind cc; do
    if ! command -v "$needed" >/dev/null; then
        echo "$needed is missing (apt-get install valgrind gcc libc6-dev)" >&2
        exit 2
    fi
done
BEFORE= TURNS=1
if [ "${1-}" = --before ]; then
    BEFORE=$(./build_before.sh "${2-}") || exit 2
    TURNS=3
    shift 2
fi
TARGET=${CARGO_TARGET_DIR:-target}/release
cargo build --release --quiet --locked -p peer-wharf -p load || exit 2
NOW=${1-$TARGET/peer-wharf}
ulimit -S -n "$(ulimit -H -n)"
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/wharf-instructions.XXXXXX")
SERVER=
clean_up() {
    [ -z "$SERVER" ] || kill -KILL "$SERVER" 2>/dev/null || true
    rm -rf "$SCRATCH"
}
trap clean_up EXIT
trap 'exit 2' INT TERM
cc -std=gnu11 -O2 -shared -fPIC -o "$SCRATCH/ring_wait.so" ring_wait.c -ldl || exit 2

# give_up FILE: says what went wrong.
give_up() {
    cat "$1" >&2
    exit 2
}

# count BINARY BACKEND SERVER LOAD OPERATIONS: sets COUNTED, "instructions operations", of one run.
count() {
    local address='' deadline=$((SECONDS + 120)) instructions operations
    rm -f "$SCRATCH/address" # it is the last server's until this one is started
    # shellcheck disable=SC2086 # several words
    LD_PRELOAD=$SCRATCH/ring_wait.so valgrind --tool=callgrind --fair-sched=try \
        --callgrind-out-file=/dev/null "$1" --listen 127.0.0.1:0 --backend "$2" --no-long-turns $3 \
        >"$SCRATCH/address" 2>"$SCRATCH/server" &
    SERVER=$!
    until address=$(grep -soE '127\.0\.0\.1:[0-9]+' "$SCRATCH/address"); do
        [ "$SECONDS" -lt "$deadline" ] || give_up "$SCRATCH/server"
        sleep 0.05
    done
    # shellcheck disable=SC2086
    timeout 180 "$TARGET/load" --target "$address" --server "$SERVER" --warm-secs 0 --secs 120 \
        --operations "$5" $4 >"$SCRATCH/load" || give_up "$SCRATCH/load"
    kill -TERM "$SERVER"
    wait "$SERVER" 2>/dev/null || true
    SERVER=
    instructions=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$SCRATCH/server")
    operations=$(sed -n 's/.*"operations":\([0-9]*\).*/\1/p' "$SCRATCH/load")
    [ -n "$instructions" ] && [ -n "$operations" ] || give_up "$SCRATCH/server"
    COUNTED="$instructions $operations"
}

# per_operation BINARY BACKEND SERVER LOAD SHORT LONG: sets EACH.
per_operation() {
    local short
    count "$1" "$2" "$3" "$4" "$5"
    short=$COUNTED
    count "$1" "$2" "$3" "$4" "$6"
    EACH=$(awk '{ printf "%.1f", ($3 - $1) / ($4 - $2) }' <<<"$short $COUNTED")
}

# median VALUE...: of an odd number of them.
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

# knows BINARY SERVER: whether a server of that commit has the workload.
knows() {
    local code=0
    # shellcheck disable=SC2086
    timeout 1 "$1" --listen 127.0.0.1:0 $2 >/dev/null 2>&1 || code=$?
    [ "$code" = 124 ]
}

verdict=0
row() { printf '%-14s %-10s %12s %12s %8s  %s\n' "$@"; }
row workload port "${BEFORE:+before}" now "${BEFORE:+ratio}" ''
while IFS='|' read -r name judged server load short long; do
    [ -z "$BEFORE" ] || knows "$BEFORE" "$server" || continue
    for backend in uring readiness; do
        each=() each_before=() before='' ratio='' word=''
        for ((turn = 0; turn < (judged ? TURNS : 1); turn++)); do
            if [ -n "$BEFORE" ]; then
                per_operation "$BEFORE" "$backend" "$server" "$load" "$short" "$long"
                each_before+=("$EACH")
            fi
            per_operation "$NOW" "$backend" "$server" "$load" "$short" "$long"
            each+=("$EACH")
        done
        now=$(median "${each[@]}")
        if [ -n "$BEFORE" ]; then
            before=$(median "${each_before[@]}")
            ratio=$(awk "BEGIN { printf \"%.4f\", $now / $before }")
            word='not judged'
            if ((judged)); then
                word=kept
                awk "BEGIN { exit !($ratio <= $RATIO_MAX) }" || { word=more verdict=1; }
            fi
        fi
        row "$name" "$backend" "$before" "$now" "$ratio" "$word"
    done
done <<'WORKLOADS'
echo-64x50|1|--workload echo|--sessions 50|4000|54000
echo-64x1000|1|--workload echo|--sessions 1000|4000|64000
broadcast-500|1|--workload broadcast|--workload broadcast --sessions 500 --depth 8|25000|325000
ws-64x50|1|--workload ws-echo|--form web-socket --sessions 50|4000|54000
ws-plain-64x50|1|--workload ws-echo --length-prefixed|--form length --sessions 50|4000|54000
send-2|0|--workload send-by-id --sessions 1000 --senders 2|--workload send-by-id --sessions 1000|300000|700000
WORKLOADS
exit "$verdict"
