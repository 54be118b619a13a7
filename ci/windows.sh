#!/usr/bin/env bash
# Everything about Windows, on a Linux machine: built by cross-compiling, run under Wine.
#
#   the workspace builds without a warning for x86_64-pc-windows-gnu, and for -msvc as far as types go
#   all unit, contract and integration tests of it pass
#   lab/local-overlapped: the pinned operations do as they should
#   the cross tests: `wharf.exe echo` under Wine driven by the native `wharf load` and by clients in
#   Python, then a native `wharf echo` driven by `wharf.exe load`
#     echo and idle, every byte verified
#     churn beside connections that are reset at random: opened - closed = live in every stats line
#     10 times 3 MB in both directions at once, compared by hash
#     Ctrl-C under load: it drains, and the report adds up; a second Ctrl-C stops it at once
#
# What is missing is installed. What cannot be had is named, and is a failure. Nothing here says how
# fast Windows is: Wine is another thing.
#
# usage: ci/windows.sh [--quick | --build]
#   --quick: less of the cross tests, and the command without the optimizer's last pass
#   --build: builds and type-checks what --quick runs, and runs none of it
set -euo pipefail
cd "$(dirname "$0")/.."

# All of it runs inside one use of Wine.
if [ -z "${WHARF_UNDER_WINE-}" ]; then
    export WHARF_UNDER_WINE=1
    exec ci/wine.sh ci/windows.sh "$@"
fi
unset WHARF # the build of this tree is what is tested
# shellcheck source=ci/show/lib.sh
. ci/show/lib.sh
BUILD_ONLY=0
if [ "${1-}" = --build ]; then BUILD_ONLY=1 && shift && set -- --quick "$@"; fi
read_arguments "$@"
need rustup

TARGET=x86_64-pc-windows-gnu
TARGET_MSVC=x86_64-pc-windows-msvc
CLIENTS=$ROOT/ci/windows/clients.py

ECHO_SESSIONS=$(quick_or 1000 5000)
ECHO_SECS=$(quick_or 3 20)
IDLE_SESSIONS=$(quick_or 1000 5000)
IDLE_SECS=$(quick_or 2 10)
CHURN_SECS=$(quick_or 5 60)

section() { printf -- '\n-- windows: %s\n' "$*"; }

# --- Building ---------------------------------------------------------------------------------

# Linked as a whole, a release takes a minute more to build; here it says nothing of speed.
if [ "$QUICK" -eq 1 ]; then
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0
fi

lab() { # build|run: the programs of the lab that run on Windows
    local on arguments=()
    [ "$1" = build ] || arguments=(-- --quick)
    for on in lab/*/on; do
        grep -qx wine "$on" || continue
        cargo "$1" --quiet --release --manifest-path lab/Cargo.toml --target-dir "$TARGET_DIR/lab" \
            --target "$TARGET" -p "$(basename "$(dirname "$on")")" "${arguments[@]}"
    done
}

section "builds"
cargo build --release --target "$TARGET"
cargo test -p wharf-net --features websocket --no-run --target "$TARGET"
cargo test -p wharf-cli --no-run --target "$TARGET"
lab build

section "clippy"
cargo clippy --workspace --all-targets --target "$TARGET" -- -D warnings

section "type check for $TARGET_MSVC"
if ! rustup target list --installed | grep -qx "$TARGET_MSVC"; then
    rustup target add "$TARGET_MSVC" || cannot "the Rust target $TARGET_MSVC cannot be had"
fi
cargo check --workspace --all-targets --target "$TARGET_MSVC"

if [ "$BUILD_ONLY" -eq 1 ]; then exit; fi

# --- The tests --------------------------------------------------------------------------------

section "tests under Wine"
# What is simulated is the same everywhere, and is simulated natively; Wine would add nothing but time.
cargo test -p wharf-net --features websocket --no-fail-fast --target "$TARGET"
cargo test -p wharf-cli --no-fail-fast --target "$TARGET"

section "lab"
lab run

# --- The cross tests --------------------------------------------------------------------------

section "cross tests"
NATIVE=$WHARF
WINDOWS=$TARGET_DIR/$TARGET/release/wharf.exe
PASSES=0 FAILURES=0

# Whose server and whose load the functions of lib.sh run.
windows_server() { SERVER_PREFIX=("$WINE") STOP_SIGNAL=INT WHARF=$WINDOWS; } # Wine makes it Ctrl-C
native_server() { SERVER_PREFIX=() STOP_SIGNAL=TERM WHARF=$NATIVE; }
windows_load() { LOAD_PREFIX=("$WINE") WHARF=$WINDOWS; }
native_load() { LOAD_PREFIX=() WHARF=$NATIVE; }

serve_windows() { windows_server && start_server iocp --stats-every 0.5 "$@" && native_load; }

# clients LABEL SECONDS_MAX ARGUMENT...: ci/windows/clients.py, which must find nothing wrong.
clients() {
    local label=$1 seconds_max=$2 code=0 text
    shift 2
    text=$(timeout "$seconds_max" python3 "$CLIENTS" "$@" 2>&1) || code=$?
    check "$label: $text" [ "$code" -eq 0 ]
}

server_figure() { python3 "$SHOW/figures.py" field "$SERVER_LOG" "$1" 2>/dev/null; }
sessions_are() { [ "$(server_figure stats.live)" = "$1" ]; }

check_balance() {
    local lines unbalanced
    read -r lines unbalanced <<<"$(python3 "$SHOW/figures.py" stats "$SERVER_LOG")"
    check "$1: opened - closed = live in $((lines - unbalanced)) of $lines stats lines" \
        holds "$lines > 0 && $unbalanced == 0"
}

# What a drain reported must account for every session that was live.
check_drain() {
    local label=$1 live flushed cut_off ended
    live=$(server_figure drained.live) flushed=$(server_figure drained.flushed)
    cut_off=$(server_figure drained.cut_off) ended=$(server_figure drained.ended)
    check "$label: the drain found $live live: $flushed flushed, $cut_off cut off, $ended ended" \
        [ "${live:-none}" = $((flushed + cut_off + ended)) ]
    check "$label: so many were live, and so many cut off" [ "$live $cut_off" = "$2" ]
}

label="wharf.exe echo, native load"
serve_windows
note "$label: $(server_figure listening.backend)"
run_load "$label" $((ECHO_SECS + 60)) echo --target "$ADDRESS" --sessions "$ECHO_SESSIONS" \
    --secs "$ECHO_SECS"
run_load "$label" 60 echo --target "$ADDRESS" --sessions 50 --bytes 16384 --depth 4 --secs 1
run_load "$label" $((IDLE_SECS + 60)) idle --target "$ADDRESS" --sessions "$IDLE_SESSIONS" \
    --secs "$IDLE_SECS"
clients "$label, duplex" 120 duplex "$ADDRESS" 10 3000000
windows_server
stop_server "$label"
check_balance "$label"

label="wharf.exe echo, churn with resets"
serve_windows
clients "$label" $((CHURN_SECS + 60)) resets "$ADDRESS" 16 "$CHURN_SECS" >"$SCRATCH/resets.text" &
resets=$!
STARTED+=("$resets")
run_load "$label, beside them" $((CHURN_SECS + 60)) churn --target "$ADDRESS" --sessions 8 \
    --secs "$CHURN_SECS"
wait "$resets" || true
forget "$resets"
cat "$SCRATCH/resets.text"
if ! grep -q '^ok ' "$SCRATCH/resets.text"; then FAILURES=$((FAILURES + 1)); else PASSES=$((PASSES + 1)); fi
check "$label: no session is left" wait_until 10 sessions_are 0
windows_server
stop_server "$label"
check_balance "$label"
note "$label: $(python3 "$SHOW/figures.py" closed "$SERVER_LOG")"

label="wharf.exe echo, Ctrl-C under load"
serve_windows --drain-secs 30
timeout 90 "$NATIVE" load echo --target "$ADDRESS" --sessions 200 --bytes 5000 --depth 4 --secs 60 \
    --json "$SCRATCH/drained.json" >"$SCRATCH/drained.text" 2>&1 &
load=$!
STARTED+=("$load")
check "$label: 200 sessions are there" wait_until 20 sessions_are 200
windows_server
stop_server "$label"
wait "$load" || true
forget "$load"
check_drain "$label" "200 0"
kinds=$(python3 "$SHOW/figures.py" kinds "$SCRATCH/drained.json")
check "$label: the load saw nothing but ends ($kinds)" grep -qx 'ended early: peer closed: 200' \
    <<<"$kinds"
check_balance "$label"

label="wharf.exe echo, Ctrl-C twice"
serve_windows --drain-secs 600
python3 "$SHOW/stream.py" stalled "$ADDRESS" 1 >"$SCRATCH/clients" 2>&1 &
stalled=$!
STARTED+=("$stalled")
held_back() { grep -q 'held back' "$SCRATCH/clients"; }
check "$label: a client that does not read is held back" wait_until 20 held_back
kill -INT "$SERVER_PID"
# Looked up, not tried: a connection that came just as the drain began would be one more of its sessions.
listens_no_more() {
    ! grep -qi "$(printf ':%04X 00000000:0000 0A' "${ADDRESS##*:}")" /proc/net/tcp
}
check "$label: after the first it listens no more" wait_until 10 listens_no_more
check "$label: and waits for what is queued" kill -0 "$SERVER_PID"
windows_server
stop_server "$label" # the second
check_drain "$label" "1 1"
kill -KILL "$stalled" 2>/dev/null || true # it may have ended by the reset
wait "$stalled" 2>/dev/null || true
forget "$stalled"

label="native echo, wharf.exe load"
native_server
start_server auto --stats-every 0.5
windows_load
run_load "$label" $((ECHO_SECS + 60)) echo --target "$ADDRESS" --sessions "$ECHO_SESSIONS" \
    --secs "$ECHO_SECS"
run_load "$label, open loop" $((ECHO_SECS + 60)) echo --target "$ADDRESS" --sessions 100 \
    --rate 500 --secs "$ECHO_SECS"
run_load "$label" $((ECHO_SECS + 60)) churn --target "$ADDRESS" --sessions 16 --secs "$ECHO_SECS"
run_load "$label" $((IDLE_SECS + 60)) idle --target "$ADDRESS" --sessions "$IDLE_SESSIONS" \
    --secs "$IDLE_SECS"
native_server
stop_server "$label"
check_balance "$label"

label="wharf.exe echo, wharf.exe load"
windows_server
start_server iocp --framing length --threads-per-port 3
windows_load
run_load "$label" 60 echo --target "$ADDRESS" --framing length --sessions 100 --workers 2 \
    --bytes 5000 --secs 2
windows_server
stop_server "$label"

printf '\ncross: %d passed, %d failed\n' "$PASSES" "$FAILURES"
finish
