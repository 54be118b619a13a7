#!/usr/bin/env bash
# How much of the server's time is wharf's own code, session layer and all, and how much the kernel's: 64 B
# echoed on one core, the load on the other, samples of `perf`. What the process runs of libc counts as its own.
#
#   bench/own_code.sh [--secs S]
#
# Exit codes: 0, at most 5 % in each workload on io_uring; 1, more; 2, it could not be measured.
set -euo pipefail
cd "$(dirname "$0")"

ASKED=5
SECS=3
[ "${1-}" = --secs ] && SECS=$2
if ! command -v perf >/dev/null; then
    echo "perf is missing (apt-get install linux-perf)" >&2
    exit 2
fi
cargo build --release --quiet --locked -p peer-wharf -p load
ulimit -S -n "$(ulimit -H -n)"
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/wharf-own-code.XXXXXX")
SERVER=
clean_up() {
    [ -z "$SERVER" ] || kill -KILL "$SERVER" 2>/dev/null || true
    rm -rf "$SCRATCH"
}
trap clean_up EXIT
trap 'exit 2' INT TERM

# share BACKEND LOAD...: sets SHARE, the part of samples that is not the kernel's, in percent.
share() {
    local backend=$1 address='' load_secs deadline=$((SECONDS + 10))
    shift
    taskset -c 0 target/release/peer-wharf --listen 127.0.0.1:0 --workload echo \
        --backend "$backend" >"$SCRATCH/server" 2>&1 &
    SERVER=$!
    until address=$(grep -oE '127\.0\.0\.1:[0-9]+' "$SCRATCH/server"); do
        [ "$SECONDS" -lt "$deadline" ] || { cat "$SCRATCH/server" >&2; exit 2; }
        sleep 0.05
    done
    load_secs=$((SECS + 3))
    timeout $((load_secs + 60)) taskset -c 1 target/release/load --target "$address" --server "$SERVER" \
        --secs "$load_secs" --warm-secs 0 "$@" >"$SCRATCH/load" &
    local load=$!
    sleep 2 # all sessions are there, and the server is under way
    perf record --quiet -F 4999 -p "$SERVER" -o "$SCRATCH/samples" -- sleep "$SECS" 2>"$SCRATCH/perf" ||
        { cat "$SCRATCH/perf" >&2; exit 2; }
    wait "$load" || { cat "$SCRATCH/load" >&2; exit 2; }
    kill -TERM "$SERVER"
    wait "$SERVER" 2>/dev/null || true
    SERVER=
    SHARE=$(perf report -i "$SCRATCH/samples" --stdio --sort dso 2>/dev/null |
        awk '/^ *[0-9]/ && !/\[kernel/ && !/\[k/ { own += $1 } END { printf "%.1f", own }')
}

verdict=0
for backend in uring readiness; do
    while read -r name arguments; do
        # shellcheck disable=SC2086 # several words
        share "$backend" $arguments
        if [ "$backend" = uring ]; then
            word=ok
            awk "BEGIN { exit !($SHARE <= $ASKED && $SHARE > 0) }" || { word=FAILED verdict=1; }
            printf '%-7s %-9s %-12s own code: %4s %% of samples, at most %s\n' \
                "$word" "$backend" "$name" "$SHARE" "$ASKED"
        else
            printf '%-7s %-9s %-12s own code: %4s %% of samples\n' '' "$backend" "$name" "$SHARE"
        fi
    done <<<'echo-64x50 --sessions 50
echo-64x1000 --sessions 1000
deep-64x50 --sessions 50 --depth 16'
done
exit "$verdict"
