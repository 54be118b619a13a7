#!/usr/bin/env bash
# WebSocket judged by strangers, on io_uring and on readiness: examples/web_socket_echo.rs by their clients, and
# examples/web_socket_client.rs by their servers. Every byte is compared.
#
#   autobahn  the original test suite (autobahntestsuite 0.8.2, which needs CPython 2.7), as client and as server. No
#             case may be NON-STRICT, nor the way in which it was closed
#   python    the packages websockets (client and server) and websocket-client
#   npm       ws (client and server)
#   gorilla   gorilla/websocket for Go, of Debian (client and server)
#   curl      curl, and bare sockets: the health check, and requests that are refused
#
# All parts, or those that are named. What they need is installed, under the target directory where that is possible.
# Exit code: 0 all checks hold; 1 one does not; 2 a part could not be run.
#
# --quick leaves out the suite's cases of large messages and of compression (9.*, 12.*, 13.*), and is content without
# CPython 2.7.
#
# usage: ci/foreign.sh [--quick] [PART...]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/show/lib.sh"

THEIRS=$ROOT/ci/foreign
OURS=$TARGET_DIR/release/examples
INSTALLED=$TARGET_DIR/foreign
BACKENDS=(uring readiness)
PARTS=(autobahn python npm gorilla curl)
CROWD=41
CROWD_DEFLATED=9
MISSING=() # parts that could not be run
declare -A SERVER_OF # the address of our server, by its backend

missing() { # WHY...
    MISSING+=("$part")
    printf 'MISSING %s: %s\n' "$part" "$*"
}

debian() { # PACKAGE...
    { apt-get update -q && apt-get install -q -y --no-install-recommends "$@"; } >"$SCRATCH/apt" 2>&1 ||
        { tail -n 3 "$SCRATCH/apt" && return 1; }
}

# --- Our server by their client, their server by our client ---------------------------------------

# says TEXT FILE CODE: a check that has written to a file, and its last line.
says() {
    check "$1: $(tail -n 1 "$2")" [ "$3" -eq 0 ]
    if [ "$3" -ne 0 ]; then sed 's/^/        /' "$2"; fi
}

# their_client NAME COMMAND...: it checks our server, whose address is added to the command.
their_client() {
    local backend code
    for backend in "${BACKENDS[@]}"; do
        code=0
        timeout 300 "${@:2}" "${SERVER_OF[$backend]}" >"$SCRATCH/said" 2>&1 || code=$?
        says "$1 as client, $backend" "$SCRATCH/said" "$code"
    done
}

# ask BACKEND ADDRESS PATH...: our client.
ask() { WHARF_BACKEND=$1 timeout "$SECONDS_MAX" "$OURS/web_socket_client" "${@:2}" 2>&1; }

# What our client has to say of each of their servers.
is_to_say() {
    local number
    for ((number = 0; number < CROWD + CROWD_DEFLATED; number++)); do echo "/drive: echo.v2, peer closed with (4003)"; done
    echo "/token: echo.v2, peer closed with (4003)"
    echo "/goodbye: echo.v2, kicked (4002)"
    echo "/refused: the server has refused the WebSocket with the status 403"
    echo "/other: the server's answer is wrong: it has a subprotocol that was not asked for"
}

heard_goodbyes() { [ "$(grep -c '^/goodbye holds$' "$1")" -eq "$2" ]; }

# their_server NAME COMMAND...: it checks our client.
their_server() {
    local log=$SCRATCH/$1.log address backend pid drives goodbyes=0
    mapfile -t drives < <(yes /drive | head -n "$CROWD")
    "${@:2}" >"$log" 2>&1 &
    pid=$!
    STARTED+=("$pid")
    wait_until 20 grep -q '^listening on' "$log" || { fail "$1: no server: $(tail -n 3 "$log")" && return; }
    address=$(awk '/^listening on/ { print $3 }' "$log")
    for backend in "${BACKENDS[@]}"; do
        {
            AT_ONCE=$CROWD ask "$backend" "$address" "${drives[@]}"
            DEFLATE=1 AT_ONCE=$CROWD ask "$backend" "$address" "${drives[@]:0:$CROWD_DEFLATED}"
            HEADER="X-Token: one" ask "$backend" "$address" /token
            GOODBYE=farewell ask "$backend" "$address" /goodbye
            ask "$backend" "$address" /refused /other
        } >"$SCRATCH/said" || true
        check "$1 as server, $backend: $(wc -l <"$SCRATCH/said") sessions end as they must" \
            diff <(is_to_say | uniq -c) <(uniq -c "$SCRATCH/said")
        goodbyes=$((goodbyes + 1))
        check "$1 as server, $backend: it has heard our goodbye" wait_until 10 heard_goodbyes "$log" "$goodbyes"
    done
    grep -v -e '^listening on' -e '^/goodbye holds$' "$log" | sort | uniq -c >"$SCRATCH/differs" || true
    if [ -s "$SCRATCH/differs" ]; then
        fail "$1 as server: something differs"
        head -n 5 "$SCRATCH/differs"
    fi
    kill -TERM "$pid" 2>/dev/null || fail "$1: its server had ended"
    wait "$pid" 2>/dev/null || true
    forget "$pid"
}

# --- The parts ------------------------------------------------------------------------------------

find_python27() {
    local python
    for python in python2.7 "$HOME"/.pyenv/versions/2.7.*/bin/python; do
        if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
            PYTHON27=$python
            return
        fi
    done
    return 1
}

# wstest MODE SPECIFICATION: in the background only, for its process becomes the suite's.
wstest() {
    PYTHONUSERBASE=$INSTALLED/autobahn exec timeout "$SECONDS_MAX" \
        setpriv --pdeathsig KILL "$PYTHON27" "$INSTALLED/autobahn/bin/wstest" -m "$1" -s "$2" -u 0
}

# specify NAME MEMBER: a specification for the suite, with this member more.
specify() {
    printf '{"outdir": "%s", %s, "cases": [%s], "exclude-cases": [], "exclude-agent-cases": {}}\n' \
        "$INSTALLED/reports/$1" "$2" "$CASES" >"$SCRATCH/$1.json"
}

# judge NAME [PREFIX...]: the lines of a report's agents.
judge() {
    python3 "$THEIRS/autobahn.py" "$INSTALLED/reports/$1/index.json" "$CASE_COUNT" "${@:2}" >"$SCRATCH/judged-$1" 2>&1
}

# suite client|server [PREFIX...]: what it finds. It drops what is not closed after half a second, which a busy machine
# may not be able to; so it is asked once more if something differs. What is wrong differs again.
suite() {
    local backend code again=0
    "suite_as_$1"
    for backend in "${BACKENDS[@]}"; do judge "as-$1-$backend" "${@:2}" || again=1; done
    if [ "$again" -eq 1 ]; then
        sed 's/^/        /' "$SCRATCH/judged-as-$1"-*
        note "autobahn as $1: once more"
        "suite_as_$1"
    fi
    for backend in "${BACKENDS[@]}"; do
        code=0
        judge "as-$1-$backend" "${@:2}" || code=$?
        says "autobahn as $1" "$SCRATCH/judged-as-$1-$backend" "$code"
    done
}

# The suite asks our servers, both at once.
suite_as_client() {
    local backend pids=() pid
    for backend in "${BACKENDS[@]}"; do
        specify "as-client-$backend" \
            "\"servers\": [{\"agent\": \"$backend\", \"url\": \"ws://${SERVER_OF[$backend]}\"}]"
        wstest fuzzingclient "$SCRATCH/as-client-$backend.json" >"$SCRATCH/as-client-$backend.log" 2>&1 &
        pids+=("$!")
        STARTED+=("$!")
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || true # there is no report then
        forget "$pid"
    done
}

tells_case_count() { [[ $(PRINT=1 ask "$1" "$2" /getCaseCount) == "$CASE_COUNT"$'\n'* ]]; } # BACKEND ADDRESS

# Our client asks the suite for each of its cases, in their order, and then for the report.
ask_for_cases() { # BACKEND ADDRESS
    local number paths=()
    for ((number = 1; number <= CASE_COUNT; number++)); do paths+=("/runCase?case=$number&agent=$1"); done
    DEFLATE=1 ask "$1" "$2" "${paths[@]}" "/updateReports?agent=$1"
}

free_port() { python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'; }

# Our clients ask the suite, both at once.
suite_as_server() {
    local backend address suites=() clients=() pid
    for backend in "${BACKENDS[@]}"; do
        address=127.0.0.1:$(free_port)
        specify "as-server-$backend" "\"url\": \"ws://$address\""
        wstest fuzzingserver "$SCRATCH/as-server-$backend.json" >"$SCRATCH/as-server-$backend.log" 2>&1 &
        suites+=("$!")
        STARTED+=("$!")
        check "autobahn as server, $backend: it has $CASE_COUNT cases" \
            wait_until 20 tells_case_count "$backend" "$address"
        ask_for_cases "$backend" "$address" >"$SCRATCH/cases-$backend" &
        clients+=("$!")
    done
    for pid in "${clients[@]}"; do wait "$pid" || true; done # there is no report then
    for pid in "${suites[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        forget "$pid"
    done
}

part_autobahn() {
    local of_version='import autobahntestsuite; assert autobahntestsuite.version == "0.8.2"'
    if ! find_python27; then
        if [ "$QUICK" -eq 1 ]; then note "autobahn: NOT RUN: there is no CPython 2.7" && return; fi
        missing "there is no CPython 2.7, neither in PATH nor of pyenv" && return
    fi
    if ! PYTHONUSERBASE=$INSTALLED/autobahn "$PYTHON27" -W ignore -c "$of_version" 2>/dev/null; then
        PYTHONUSERBASE=$INSTALLED/autobahn "$PYTHON27" -m pip install -q --disable-pip-version-check --user \
            --no-warn-script-location --ignore-installed autobahntestsuite==0.8.2 >"$SCRATCH/pip" 2>&1 ||
            { missing "$(tail -n 1 "$SCRATCH/pip")" && return; }
    fi
    rm -rf "$INSTALLED/reports"
    CASES='"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"'
    CASE_COUNT=247
    if [ "$QUICK" -eq 0 ]; then CASES+=', "9.*", "12.*", "13.*"' && CASE_COUNT=517; fi
    suite client
    suite server 13.3. 13.4. 13.5. 13.6. # our client offers no sizes of windows
}

part_python() {
    local of=$INSTALLED/python
    if ! cmp -s "$THEIRS/requirements.txt" "$of/requirements.txt"; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || debian python3-venv ||
            { missing "Debian has venv in python3-venv" && return; }
        { rm -rf "$of" && python3 -m venv "$of" && "$of/bin/pip" install -q -r "$THEIRS/requirements.txt"; } \
            >"$SCRATCH/pip" 2>&1 || { missing "$(tail -n 1 "$SCRATCH/pip")" && return; }
        cp "$THEIRS/requirements.txt" "$of"
    fi
    their_client websockets "$of/bin/python" "$THEIRS/websockets_client.py"
    their_client websocket-client "$of/bin/python" "$THEIRS/websocket_client.py"
    their_server websockets "$of/bin/python" "$THEIRS/websockets_server.py"
}

part_npm() {
    local of=$INSTALLED/npm
    { command -v node && command -v npm; } >/dev/null || debian nodejs npm ||
        { missing "Debian has node and npm in nodejs and npm" && return; }
    mkdir -p "$of" && cp "$THEIRS"/package.json "$THEIRS"/*.js "$of"
    [ -d "$of/node_modules/ws" ] || (cd "$of" && npm install --no-audit --no-fund) >"$SCRATCH/npm" 2>&1 ||
        { missing "$(tail -n 1 "$SCRATCH/npm")" && return; }
    their_client ws node "$of/ws_client.js"
    their_server ws node "$of/ws_server.js"
}

part_gorilla() {
    local packages=/usr/share/gocode
    { command -v go && [ -d $packages/src/github.com/gorilla/websocket ]; } >/dev/null ||
        debian golang-go golang-github-gorilla-websocket-dev ||
        { missing "Debian has them in golang-go and golang-github-gorilla-websocket-dev" && return; }
    (cd "$ROOT" && GO111MODULE=off GOPATH=$packages GOCACHE=$INSTALLED/go-cache \
        go build -o "$INSTALLED/gorilla" ./ci/foreign/gorilla) >"$SCRATCH/go" 2>&1 ||
        { missing "$(tail -n 1 "$SCRATCH/go")" && return; }
    their_client gorilla "$INSTALLED/gorilla" client
    their_server gorilla "$INSTALLED/gorilla" server
}

# answers STATUS WORDS CURL_ARGUMENT...: this status, and these words in the answer.
answers() {
    local status expected=$1 words=$2
    status=$(curl -s -m 10 -i -o "$SCRATCH/answer" -w '%{http_code}' "${@:3}") || true
    check "curl, $backend: $status with $words" grep -qi -- "$words" "$SCRATCH/answer"
    [ "$status" = "$expected" ] || fail "curl, $backend: $status, not $expected"
}

part_curl() {
    local backend url long
    command -v curl >/dev/null || debian curl || { missing "Debian has it" && return; }
    long=$(printf '%09000d' 0)
    for backend in "${BACKENDS[@]}"; do
        url=http://${SERVER_OF[$backend]}
        answers 200 '^fine$' "$url/health?from=curl"
        answers 426 '^upgrade: websocket' "$url/"
        answers 405 '^allow: GET' -d posted "$url/"
        answers 400 '^content-length: 0' -H Host: "$url/health"
        answers 431 '^connection: close' -H "Cookie: $long" "$url/health"
    done
    their_client "bare sockets" python3 "$THEIRS/bare.py"
}

# --------------------------------------------------------------------------------------------------

if [ "${1-}" = --quick ]; then QUICK=1 && shift; fi
SECONDS_MAX=$(quick_or 120 7200)
[ $# -eq 0 ] || PARTS=("$@")
for part in "${PARTS[@]}"; do
    case $part in
        autobahn | python | npm | gorilla | curl) ;;
        *) sed -n '2,20s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
done
need python3 timeout setpriv awk diff
build_examples
mkdir -p "$INSTALLED"
declare -A PROCESS_OF LOG_OF
for backend in "${BACKENDS[@]}"; do
    start_example "$backend" web_socket_echo 127.0.0.1:0
    SERVER_OF[$backend]=$ADDRESS PROCESS_OF[$backend]=$SERVER_PID LOG_OF[$backend]=$SERVER_LOG
done
for part in "${PARTS[@]}"; do
    began=$SECONDS failed=$FAILURES
    "part_$part"
    printf -- '-- %s: %d checks do not hold (%d s)\n' "$part" $((FAILURES - failed)) $((SECONDS - began))
done
for backend in "${BACKENDS[@]}"; do
    SERVER_PID=${PROCESS_OF[$backend]} SERVER_LOG=${LOG_OF[$backend]}
    check "$backend: our server says nothing" [ "$(wc -l <"$SERVER_LOG")" -eq 1 ]
    stop_example "$backend"
done
[ "$FAILURES" -gt 0 ] || [ ${#MISSING[@]} -eq 0 ] || cannot "these parts could not be run: ${MISSING[*]}"
finish
