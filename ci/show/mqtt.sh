#!/usr/bin/env bash
# The broker of examples/mqtt.rs and the clients that everybody has: paho-mqtt, mosquitto_sub and mosquitto_pub.
#
# 1. Checks with paho-mqtt and with bare sockets, one for each thing that the broker does, and for what breaks a rule.
# 2. 200 mosquitto_sub have 40,000 lines that were published once: every one, in order. They write to their own
#    checksums, which are compared with that of the lines.
# 3. Bursts: 500 lines of 1 KiB to 10 subscribers, and 20,000 to 5, published as fast as it goes, which is more than may
#    wait at a port. Nobody is cut, and no line is missing.
#
# --quick has 20 subscribers, 2,000 lines, and the first burst.
#
# usage: ci/show/mqtt.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need mosquitto_sub mosquitto_pub sha256sum
build_examples

# paho-mqtt, in an environment of its own that is kept under the target directory.
PAHO=$TARGET_DIR/paho-mqtt
if ! "$PAHO/bin/python" -c 'import paho.mqtt' 2>/dev/null; then
    { rm -rf "$PAHO" && python3 -m venv "$PAHO" && "$PAHO/bin/pip" install -q 'paho-mqtt>=2,<3'; } >&2 ||
        cannot "paho-mqtt cannot be had (Debian has venv in python3-venv)"
fi

SECONDS_MAX=$(quick_or 60 900)

# subscribe NUMBER TOPIC COUNT: a subscriber that says in files when it is there, and the checksum of what came then.
subscribe() {
    mosquitto_sub -h "${ADDRESS%:*}" -p "${ADDRESS##*:}" -t "$2" -C $(($3 + 1)) -W "$SECONDS_MAX" |
        { read -r _ready && : >"$SCRATCH/there-$1" && sha256sum >"$SCRATCH/came-$1"; }
}

all_are_there() { [ "$(find "$SCRATCH" -name 'there-*' | wc -l)" -eq "$1" ]; }

say() { mosquitto_pub -h "${ADDRESS%:*}" -p "${ADDRESS##*:}" "$@"; }

# burst SUBSCRIBERS COUNT BYTES: lines that are published once, and what each subscriber has of them.
burst() {
    local topic=show/$1x$2 number pid pids=() same=0 began
    python3 "$SHOW/mqtt.py" lines "$2" "$3" >"$SCRATCH/lines"
    rm -f "$SCRATCH"/there-* "$SCRATCH"/came-*
    say -t "$topic" -r -m ready
    for ((number = 1; number <= $1; number++)); do
        subscribe "$number" "$topic" "$2" &
        pids+=("$!")
        STARTED+=("$!")
    done
    if ! wait_until 60 all_are_there "$1"; then
        fail "$backend: not all of $1 subscribers were there"
        finish
    fi
    began=$SECONDS
    say -t "$topic" -l <"$SCRATCH/lines"
    for pid in "${pids[@]}"; do
        wait "$pid" || true
        forget "$pid"
    done
    for ((number = 1; number <= $1; number++)); do
        if [ "$(cat "$SCRATCH/came-$number" 2>/dev/null)" = "$(sha256sum <"$SCRATCH/lines")" ]; then
            same=$((same + 1))
        fi
    done
    say -t "$topic" -r -n
    check "$backend: $same of $1 mosquitto_sub had all of $2 lines of $3 bytes, in order, in \
$((SECONDS - began)) s" [ "$same" -eq "$1" ]
}

for backend in uring readiness; do
    start_example "$backend" mqtt 127.0.0.1:0
    code=0
    timeout "$SECONDS_MAX" "$PAHO/bin/python" "$SHOW/mqtt.py" check "$ADDRESS" >"$SCRATCH/checks" 2>&1 || code=$?
    check "$backend: $(tail -n 1 "$SCRATCH/checks")" [ "$code" -eq 0 ]
    if [ "$code" -ne 0 ]; then sed 's/^/        /' "$SCRATCH/checks"; fi
    burst "$(quick_or 20 200)" "$(quick_or 2000 40000)" 60
    burst 10 500 1024
    if [ "$QUICK" -eq 0 ]; then burst 5 20000 1024; fi
    check "$backend: the broker says nothing" [ "$(wc -l <"$SERVER_LOG")" -eq 1 ]
    stop_example "$backend"
done
finish
