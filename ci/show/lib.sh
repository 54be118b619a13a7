# What the demonstrations share: a server, a load, a check, an orderly end. Sourced, not run.
#
# WHARF names another binary than the one that is built here; without it the release build is
# brought up to date first, in CARGO_TARGET_DIR if that is set.

SHOW=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$SHOW/../.." && pwd)
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/wharf-show.XXXXXX")
PASSES=0
FAILURES=0
SERVERS=0       # started so far; names the logs
STARTED=()      # the processes that are ours to end
SERVER_PREFIX=() # what runs the server, such as `taskset -c 0`
LOAD_PREFIX=()  # what runs the load
STOP_SIGNAL=TERM # what asks the server to end
QUICK=0

# Whatever happens, nothing that was started here stays behind, and nothing else is touched.
clean_up() {
    local pid
    for pid in "${STARTED[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "$SCRATCH"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# Ours no longer: it has ended.
forget() {
    local pid kept=()
    for pid in "${STARTED[@]}"; do [ "$pid" = "$1" ] || kept+=("$pid"); done
    STARTED=("${kept[@]}")
}

# --- Checks -----------------------------------------------------------------------------------

pass() { printf 'ok      %s\n' "$*"; PASSES=$((PASSES + 1)); }
fail() { printf 'FAILED  %s\n' "$*"; FAILURES=$((FAILURES + 1)); }
note() { printf '        %s\n' "$*"; }

# check TEXT COMMAND...: the text with `ok` or `FAILED` before it.
check() {
    local text=$1
    shift
    if "$@"; then pass "$text"; else fail "$text"; fi
}

# A comparison of numbers: holds '1.5 <= 2'.
holds() { awk "BEGIN { exit !($1) }"; }
# Arithmetic with fractions: calculate '%.2f' '3 / 2'.
calculate() { awk "BEGIN { printf \"$1\", $2 }"; }

# The last line of every demonstration, and its exit code.
finish() {
    if [ "$FAILURES" -eq 0 ]; then
        printf '%s: all checks hold (%d s)\n' "$(basename "$0")" "$SECONDS"
        exit 0
    fi
    printf '%s: %d checks FAILED (%d s)\n' "$(basename "$0")" "$FAILURES" "$SECONDS"
    exit 1
}

cannot() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 2
}

# need COMMAND...: what must be installed.
need() {
    local command missing=()
    for command in "$@"; do
        command -v "$command" >/dev/null || missing+=("$command")
    done
    [ ${#missing[@]} -eq 0 ] || cannot "these commands are missing: ${missing[*]} (Debian has \
socat, ncat, python3, mosquitto-clients, valgrind; taskset, prlimit and setpriv are in util-linux)"
}

# The arguments of every demonstration: --quick or nothing.
read_arguments() {
    case "${1-}" in
        '') ;;
        --quick) QUICK=1 ;;
        *) cannot "usage: $(basename "$0") [--quick]" ;;
    esac
    [ $# -le 1 ] || cannot "usage: $(basename "$0") [--quick]"
    need python3 timeout awk
    if [ -z "${WHARF-}" ]; then
        need cargo
        (cd "$ROOT" && cargo build --release --quiet) || cannot "the release build failed"
        WHARF=$TARGET_DIR/release/wharf
    fi
    [ -x "$WHARF" ] || cannot "$WHARF is not there: cargo build --release"
}

# quick_or SHORT FULL: one of the two.
quick_or() { if [ "$QUICK" -eq 1 ]; then printf '%s' "$1"; else printf '%s' "$2"; fi; }

# Waits until a command succeeds, at most so many seconds: wait_until 10 COMMAND...
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# --- Servers ----------------------------------------------------------------------------------

has_banner() { grep -q '"listening"' "$SERVER_LOG" || ! kill -0 "$SERVER_PID" 2>/dev/null; }

# start_server BACKEND [ARGUMENT...]: `wharf echo` on free ports. Sets SERVER_PID, SERVER_LOG (the
# server's lines as JSON), ADDRESSES and, the first of them, ADDRESS.
start_server() {
    local backend=$1
    shift
    launch_server "$backend" "$@"
    if ! wait_until 10 has_banner || ! grep -q '"listening"' "$SERVER_LOG"; then
        cannot "the server did not start: $(cat "$SERVER_LOG.err")"
    fi
    read -ra ADDRESSES <<<"$(python3 "$SHOW/figures.py" field "$SERVER_LOG" listening.addresses)"
    ADDRESS=${ADDRESSES[0]}
}

# The same without waiting for it.
launch_server() {
    local backend=$1
    shift
    SERVERS=$((SERVERS + 1))
    SERVER_LOG=$SCRATCH/server-$SERVERS.log
    : >"$SERVER_LOG"
    "${SERVER_PREFIX[@]}" "$WHARF" echo --listen 127.0.0.1:0 --backend "$backend" --json "$@" \
        >"$SERVER_LOG" 2>"$SERVER_LOG.err" &
    SERVER_PID=$!
    STARTED+=("$SERVER_PID")
}

# All at once, as .ci/run builds them.
build_examples() {
    need cargo
    cargo build --release --quiet --manifest-path "$ROOT/Cargo.toml" --workspace --examples ||
        cannot "the examples could not be built"
}

example_listens() { grep -q '^listening on' "$SERVER_LOG" || ! kill -0 "$SERVER_PID" 2>/dev/null; }

# start_example BACKEND NAME [ARGUMENT...]: an example that says where it listens. Sets SERVER_PID, SERVER_LOG (all
# that it says) and ADDRESS.
start_example() {
    SERVERS=$((SERVERS + 1))
    SERVER_LOG=$SCRATCH/server-$SERVERS.log
    : >"$SERVER_LOG"
    WHARF_BACKEND=$1 "${SERVER_PREFIX[@]}" "$TARGET_DIR/release/examples/$2" "${@:3}" >"$SERVER_LOG" 2>&1 &
    SERVER_PID=$!
    STARTED+=("$SERVER_PID")
    wait_until 10 example_listens || true
    ADDRESS=$(awk '/^listening on/ { sub(";", "", $3); print $3; exit }' "$SERVER_LOG")
    [ -n "$ADDRESS" ] || cannot "$2 did not start: $(cat "$SERVER_LOG")"
}

# stop_example LABEL
stop_example() {
    kill -TERM "$SERVER_PID" 2>/dev/null || fail "$1: the server had ended: $(tail -n 3 "$SERVER_LOG")"
    wait "$SERVER_PID" 2>/dev/null || true
    forget "$SERVER_PID"
}

# Asks the server to end. It must have drained within 15 s and end with exit code 0, which it does
# only if `opened - closed == live` held whenever it looked.
stop_server() {
    local label=$1 code=0
    kill -"$STOP_SIGNAL" "$SERVER_PID" 2>/dev/null || true
    if ! wait_until 15 has_ended "$SERVER_PID"; then
        fail "$label: the server did not end within 15 s of SIG$STOP_SIGNAL"
        kill -KILL "$SERVER_PID" 2>/dev/null || true
    fi
    wait "$SERVER_PID" || code=$?
    forget "$SERVER_PID"
    check "$label: the server drained and ended with exit code $code" [ "$code" -eq 0 ]
    if [ -s "$SERVER_LOG.err" ]; then
        fail "$label: the server complained: $(head -n 3 "$SERVER_LOG.err")"
    fi
}

has_ended() { ! kill -0 "$1" 2>/dev/null; }

# The resident memory of the server in KiB: resident VmRSS, or RssAnon.
resident() { awk -v "field=$1:" '$1 == field { print $2 }' "/proc/$SERVER_PID/status"; }

# --- Loads ------------------------------------------------------------------------------------

# run_load LABEL SECONDS_MAX MODE [ARGUMENT...]: `wharf load`, which must see no error. LOAD_JSON
# has its figures afterwards.
run_load() {
    local label=$1 seconds_max=$2 code=0
    shift 2
    LOAD_JSON=$SCRATCH/load.json
    rm -f "$LOAD_JSON"
    timeout "$seconds_max" "${LOAD_PREFIX[@]}" "$WHARF" load "$@" --json "$LOAD_JSON" \
        >"$SCRATCH/load.text" 2>&1 || code=$?
    if [ ! -s "$LOAD_JSON" ]; then
        fail "$label: the load ended with exit code $code: $(head -n 3 "$SCRATCH/load.text")"
        return 0
    fi
    local figures
    figures=$(python3 "$SHOW/figures.py" load "$LOAD_JSON")
    check "$label: $figures" [ "$code" -eq 0 ]
    if [ "$code" -ne 0 ]; then sed 's/^/        /' "$SCRATCH/load.text"; fi
}

# A figure of the last load: load_figure latency_us.p99
load_figure() { python3 "$SHOW/figures.py" field "$LOAD_JSON" "$1"; }
