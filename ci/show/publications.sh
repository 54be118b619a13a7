#!/usr/bin/env bash
# Publications to members that read, and to members that do not. `bench/publications` is the server and the load. On
# each port:
#
# 1. 200,000 frames of 64 B and 20,000 of 1 KiB are published as fast as the server accepts them, to 200 members that
#    read, with one worker and with two. Each member gets every frame, in order; no session is cut; the publisher is
#    held back. The server's CPU time for each delivery is at most a quarter of mosquitto's for the same frames (QoS 0;
#    max_queued_messages, max_queued_bytes and max_inflight_messages are 0, so that it drops none; a tenth as many, since it takes many times as long).
# 2. The same with one worker, and of the 200 members 20 never read, 20 join with `Skip` and 20 with `KeepLatest` and
#    read a tenth of what the others do. Those who never read end as slow consumers; what a `Skip` member got and what
#    `lagged` said it missed is all that was published; a `KeepLatest` member has the last frame of each key. The server
#    stays within the memory that it announces. p99 of the other 140, and of 10 members of another group that is
#    published to 100 times a second, is at most 1.5 times what it is without those 60 (in turns, medians of 5). The
#    kernel's send buffers have 128 KiB: else they take the first quarter of the flood for those 60 too, as fast as for
#    the others.
# 3. 10,000 sessions that never read, while frames are sent to each, and then also broadcast to all. Memory stays within
#    what the server has at rest, a budget of 256 MiB for all send queues, and a tenth more (--quick: 1,000, 128 MiB and
#    three tenths, since what the allocator holds weighs more there). 100 others get every frame;
#    from 3 s on, when the kernel's buffers are full, their p99 is at most 1.5 times what it is while the 10,000 get
#    nothing (in turns, medians of 3).
# 4. 100 positions, 60 times a second, for 500 members with `KeepLatest`, of whom 50 read a tenth of what the others
#    do; with the kernel's own socket buffers, and with 16 KiB of them. No session is closed, no frame is torn, and all
#    members have the last position of each key. What a slow member reads is old for two reasons: it waited in the log and
#    in its send queue, and in the kernel. The first is at most two intervals more than frames take to members at full
#    pace.
# 5. SIGSTOP in the middle of a flood to 50 members that read: of the server for longer than `slow_after`, and of the
#    load for less. No session is cut, and each member gets every frame. Of the load for longer: all members are cut.
#
# The server is on core 0, the load on core 1. --quick does less of each, without mosquitto, and asserts no time: some
# seconds of a busy machine must not fail it. PARTS="1 3" in the environment does only these.
#
# usage: ci/show/publications.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
need cargo taskset
PUBLICATIONS=${CARGO_TARGET_DIR:-$ROOT/bench/target}/release/publications
cargo build --release --quiet --locked --manifest-path "$ROOT/bench/Cargo.toml" --package publications ||
    cannot "the server and the load could not be built"
WHARF=$PUBLICATIONS # nothing else is needed
read_arguments "$@"
if [ "$QUICK" -eq 0 ]; then need mosquitto; fi

PARTS=${PARTS:-1 2 3 4 5}
MEMBERS=$(quick_or 50 200)
SERVER_PREFIX=(taskset -c 0)
LOAD_PREFIX=(taskset -c 1)

# Asserted in the full version, said in the quick one: in_full CONDITION TEXT
in_full() { if [ "$QUICK" -eq 1 ]; then note "$2"; else check "$2" holds "$1"; fi; }

listens() { grep -q '^listening on' "$SERVED" || has_ended "$SERVER_PID"; }

# A figure of the last server's, of the last load's, or of one class of its members.
declare -A OF_SERVER OF_LOAD
served() { printf %s "${OF_SERVER[$1]?the server says nothing of it}"; }
loaded() { printf %s "${OF_LOAD[$1]?the load says nothing of it}"; }
of() { loaded "classes.$1.$2"; }
# How many members the server closed for a reason.
closed() { printf %s "${OF_SERVER[closed.$1]-0}"; }

# reads_figures NAME FILE: all at once, since starting python takes longer than most else here.
reads_figures() {
    local -n figures=$1
    local path value
    figures=()
    while IFS=$'\t' read -r path value; do figures[$path]=$value; done < <(python3 "$SHOW/figures.py" every "$2")
}

MEANWHILE=true # what is done while the server publishes

# publishes LABEL SERVE_ARGUMENT... -- LOAD_ARGUMENT...: one server and one load, which must both end well.
publishes() {
    local label=$1 serve=() code=0
    shift
    while [ "$1" != -- ]; do
        serve+=("$1")
        shift
    done
    shift
    SERVED=$SCRATCH/served LOADED=$SCRATCH/loaded
    : >"$SERVED"
    "${SERVER_PREFIX[@]}" "$PUBLICATIONS" serve "${serve[@]}" >"$SERVED" 2>"$SERVED.err" &
    SERVER_PID=$!
    STARTED+=("$SERVER_PID")
    wait_until 10 listens || true
    ADDRESS=$(awk '/^listening on/ { print $3; exit }' "$SERVED")
    [ -n "$ADDRESS" ] || cannot "the server did not start: $(cat "$SERVED.err")"
    "${LOAD_PREFIX[@]}" "$PUBLICATIONS" load --target "$ADDRESS" --server "$SERVER_PID" "$@" \
        >"$LOADED" 2>"$LOADED.err" &
    LOAD_PID=$!
    STARTED+=("$LOAD_PID")
    $MEANWHILE
    wait_until 240 has_ended "$LOAD_PID" || kill -KILL "$LOAD_PID"
    wait "$LOAD_PID" || code=$?
    forget "$LOAD_PID"
    if [ "$code" -ne 0 ]; then fail "$label: the load: $code $(cat "$LOADED.err" "$SERVED.err")"; fi
    wait_until 30 has_ended "$SERVER_PID" || kill -KILL "$SERVER_PID"
    code=0
    wait "$SERVER_PID" || code=$?
    forget "$SERVER_PID"
    tail -n 1 "$SERVED" >"$SERVED.json"
    if [ "$code" -ne 0 ]; then
        fail "$label: the server ended with exit code $code: $(cat "$SERVED.err")"
        finish # there are no figures without it
    fi
    reads_figures OF_SERVER "$SERVED.json"
    reads_figures OF_LOAD "$LOADED"
}

part() { [[ " $PARTS " == *" $1 "* ]]; }
median() { python3 "$SHOW/figures.py" median "$@"; }
mib() { calculate %.1f "$1 / 1048576"; }
ms() { calculate %.1f "$1 / 1000"; }

# none_wrong LABEL CLASS...: nothing has come that should not have.
none_wrong() {
    local class
    for class in "${@:2}"; do
        if [ "$(of "$class" wrong)" -ne 0 ]; then
            fail "$1: to $(of "$class" wrong) of $class: $(of "$class" first_wrong)"
        fi
    done
}

# --- 1. All read ----------------------------------------------------------------------------------

declare -A COST # of each port with one worker and of mosquitto, by the size of the frames: ns for each delivery

# all_read LABEL FRAMES: every member has every frame.
all_read() {
    check "$1: $(of readers complete) of $MEMBERS members got all of $2 frames in order, \
$(of readers wrong) something else; $(loaded deliveries) deliveries in $(calculate %.2f "$(loaded wall_s)") s" \
        [ "$(of readers complete) $(of readers wrong)" = "$MEMBERS 0" ]
    if [ "$(of readers wrong)" -ne 0 ]; then note "$(of readers first_wrong)"; fi
}

flood() { # BACKEND WORKERS FRAMES BYTES [ARGUMENT...]
    local label="$1, $2 worker(s), $3 x $4 B"
    publishes "$label" --backend "$1" --workers "$2" --frames "$3" --bytes "$4" "${@:5}" \
        -- --members "readers:$MEMBERS:close:full:0"
    all_read "$label" "$3"
    check "$label: $(closed drained) of $MEMBERS sessions were there until the drain" \
        [ "$(closed drained)" -eq "$MEMBERS" ]
    in_full "$(served held_back.frames) > 0" "$label: the publisher was held back $(served held_back.frames) times, \
$(calculate %.2f "$(served held_back.secs)") s in all; memory peaked at \
$(($(served memory.peak_bytes) >> 20)) MiB; $(calculate %.0f "$(loaded server_cpu_ns_per_delivery)") ns of CPU for each \
delivery"
    if [ "$2" -eq 1 ]; then COST[$1,$4]=$(loaded server_cpu_ns_per_delivery); fi
}

shapes=("$(quick_or 10000 200000) 64" "$(quick_or 2000 20000) 1024")

broker_listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || has_ended "$BROKER_PID"; }

# through_mosquitto FRAMES BYTES: the same, with a broker between.
through_mosquitto() {
    local port code=0
    port=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
    cat >"$SCRATCH/broker.conf" <<END
listener $port 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 0
END
    "${SERVER_PREFIX[@]}" mosquitto -c "$SCRATCH/broker.conf" >"$SCRATCH/broker" 2>&1 &
    BROKER_PID=$!
    STARTED+=("$BROKER_PID")
    wait_until 10 broker_listens "$port" || cannot "mosquitto does not listen: $(cat "$SCRATCH/broker")"
    LOADED=$SCRATCH/loaded
    timeout 600 "${LOAD_PREFIX[@]}" "$PUBLICATIONS" load --target "127.0.0.1:$port" --server "$BROKER_PID" \
        --members "readers:$MEMBERS:close:full:0" --mqtt "$1" --bytes "$2" >"$LOADED" 2>"$LOADED.err" || code=$?
    kill -TERM "$BROKER_PID"
    wait "$BROKER_PID" || true
    forget "$BROKER_PID"
    if [ "$code" -ne 0 ]; then
        fail "mosquitto, $1 x $2 B: the load ended with exit code $code: $(cat "$LOADED.err")"
        finish # there is nothing to compare with
    fi
    reads_figures OF_LOAD "$LOADED"
    all_read "mosquitto, $1 x $2 B" "$1"
    COST[mosquitto,$2]=$(loaded server_cpu_ns_per_delivery)
}

part_1() {
    local backend workers shape bytes own others ratio
    for backend in uring readiness; do
        for workers in 1 2; do
            for shape in "${shapes[@]}"; do
                # shellcheck disable=SC2086 # two words
                flood "$backend" "$workers" $shape --publications-bytes "$(quick_or $((1 << 20)) $((16 << 20)))"
            done
        done
    done
    if [ "$QUICK" -eq 0 ]; then
        for shape in "${shapes[@]}"; do
            bytes=${shape#* }
            through_mosquitto $((${shape% *} / 10)) "$bytes"
            for backend in uring readiness; do
                own=${COST[$backend,$bytes]} others=${COST[mosquitto,$bytes]}
                ratio=$(calculate %.3f "$own / $others")
                check "$backend, $bytes B: $(calculate %.0f "$own") ns of CPU for each delivery, mosquitto \
$(calculate %.0f "$others") ns: $ratio times (at most 0.25)" holds "$ratio <= 0.25"
            done
        done
    fi
}

# --- 2. Some do not read, or slowly -----------------------------------------------------------------

# published_beside LABEL FRAMES BYTES [ARGUMENT...]: to the readers, and at a rate to another group; and to others.
published_beside() {
    local label=$1 frames=$2 bytes=$3
    publishes "$label" --backend "$backend" --frames "$frames" --bytes "$bytes" --keys 100 --paced-rate 100 \
        --kernel-bytes 131072 --publications-bytes "$BOUND" --slow-after-ms "$SLOW_AFTER_MS" --sessions-max $((MEMBERS + 11)) -- --keys 100 \
        --members "readers:$READERS:close:full:0" --members "paced:10:close:full:1" "${@:4}"
    none_wrong "$label" readers paced
    if [ "$(of readers complete) $(of paced complete)" != "$READERS 10" ]; then
        fail "$label: $(of readers complete) of $READERS readers and $(of paced complete) of 10 members of the other \
group got every frame"
    fi
}

# beside_slow LABEL FRAMES BYTES: with those who do not read, or slowly; and all that must hold of these.
beside_slow() {
    local label=$1
    published_beside "$@" --members "deaf:$ODD:close:never:0" --members "skip:$ODD:skip:tenth:0" \
        --members "latest:$ODD:latest:tenth:0"
    none_wrong "$label" deaf skip latest
    DEAF=$((DEAF + $(closed 'slow consumer')))
    LASTING=$((LASTING + $(closed drained)))
    LATEST=$((LATEST + $(of latest up_to_date)))
    SKIP=$((SKIP + $(python3 "$SHOW/figures.py" accounted "$SERVED.json" "$LOADED" skip)))
    SKIPPED=$((SKIPPED + $(served stats.skipped_frames)))
    SUPERSEDED=$((SUPERSEDED + $(served stats.superseded_frames)))
    local peak
    peak=$(served memory.peak_bytes)
    if [ "$peak" -gt "$PEAK" ]; then PEAK=$peak; fi
}

# in_turns FRAMES BYTES
in_turns() {
    local label="$backend, $1 x $2 B beside members that do not keep up" round class
    local -A without=([readers]="" [paced]="") ratios=([readers]="" [paced]="")
    DEAF=0 LASTING=0 LATEST=0 SKIP=0 SKIPPED=0 SUPERSEDED=0 PEAK=0
    for ((round = 1; round <= ROUNDS; round++)); do
        if [ "$QUICK" -eq 0 ]; then
            published_beside "$label, round $round without them" "$@"
            for class in readers paced; do without[$class]=$(of "$class" latency_us.p99); done
        fi
        beside_slow "$label, round $round" "$@"
        if [ "$QUICK" -eq 1 ]; then continue; fi
        for class in readers paced; do
            ratios[$class]+=" $(calculate %.2f "$(of "$class" latency_us.p99) / ${without[$class]}")"
        done
    done
    local each=$((ROUNDS * ODD))
    check "$label: $DEAF of $each that never read ended as slow consumers, $LASTING other sessions were there until the \
drain" [ "$DEAF $LASTING" = "$each $((ROUNDS * (READERS + 10 + 2 * ODD)))" ]
    check "$label: of $SKIP of $each with Skip, what came and what they were told they missed is all ($SKIPPED missed)" \
        holds "$SKIP == $each && $SKIPPED > 0"
    check "$label: $LATEST of $each with KeepLatest have the last frame of each key ($SUPERSEDED superseded)" \
        holds "$LATEST == $each && $SUPERSEDED > 0"
    local announced
    announced=$(served memory.announced_bytes_max)
    check "$label: memory peaked at $(mib "$PEAK") MiB (at most $(mib "$announced") MiB are announced)" \
        [ "$PEAK" -le "$announced" ]
    if [ "$QUICK" -eq 1 ]; then return; fi
    for class in readers paced; do
        # shellcheck disable=SC2086 # several words
        check "$label: p99 of the $class is $(median ${ratios[$class]}) times \
what it is without them (rounds:${ratios[$class]}; at most 1.5); at last $(ms "$(of "$class" latency_us.p99)") ms and \
$(ms "${without[$class]}") ms" holds "$(median ${ratios[$class]}) <= 1.5"
    done
}

part_2() {
    local backend shape
    ROUNDS=$(quick_or 1 5) ODD=$((MEMBERS / 10)) BOUND=$(quick_or $((1 << 20)) $((16 << 20)))
    # While publishers wait, a member is cut if its peer acknowledges nothing for a tenth of this.
    READERS=$((MEMBERS - 3 * ODD)) SLOW_AFTER_MS=$(quick_or 20000 5000)
    local shapes=("20000 1024")
    if [ "$QUICK" -eq 0 ]; then shapes+=("200000 64"); fi
    for backend in uring readiness; do
        for shape in "${shapes[@]}"; do
            # shellcheck disable=SC2086 # two words
            in_turns $shape
        done
    done
}

# --- 3. Very many never read ------------------------------------------------------------------------

# never_readers LABEL TO GROUP [ARGUMENT...]: they are members of this group, while frames of 8 KiB are published to the
# first group, or to all.
never_readers() {
    publishes "$1" --backend "$backend" --frames "$FRAMES" --bytes 8192 --rate "$RATE" --to "$2" --paced-rate 100 \
        --paced-after-secs "$(quick_or 0.5 3)" \
        --queued-bytes "$BUDGET" --kernel-bytes 16384 --sessions-max $((DEAF + 101)) --idle-secs-max 30 \
        --slow-after-ms "$SLOW_AFTER_MS" "${@:4}" -- --receive-bytes 4096 \
        --members "deaf:$DEAF:close:never:$3" --members "paced:100:close:full:1"
    none_wrong "$1" paced
    check "$1: $(of paced complete) of 100 that read got every frame of theirs, $(closed 'slow consumer') sessions ended \
as slow consumers" [ "$(of paced complete)" -eq 100 ]
}

part_3() {
    local backend label rest peak round to p99
    DEAF=$(quick_or 1000 10000) BUDGET=$(quick_or $((128 << 20)) $((256 << 20))) ROUNDS=$(quick_or 1 3)
    RATE=$(quick_or 10 1) FRAMES=$(quick_or 20 20) SLOW_AFTER_MS=$(quick_or 2000 5000)
    for backend in uring readiness; do
        label="$backend, $DEAF that never read"
        local -A p99s=([nothing]="" [group]="" [all]="") worst=([group]=0 [all]=0)
        for ((round = 1; round <= ROUNDS; round++)); do
            if [ "$QUICK" -eq 0 ]; then
                never_readers "$label and get nothing" group 2
                p99s[nothing]+=" $(of paced latency_us.p99)"
            fi
            for to in group all; do
                never_readers "$label" "$to" 2 --direct-bytes 8192
                rest=$(served memory.rest_bytes) peak=$(served memory.peak_bytes)
                if [ $((peak - rest)) -gt "${worst[$to]}" ]; then worst[$to]=$((peak - rest)); fi
                p99s[$to]+=" $(of paced latency_us.p99)"
            done
        done
        for to in group all; do
            local says="$label and are sent to"
            if [ "$to" = all ]; then says="$label, are sent to and broadcast to"; fi
            check "$says: memory peaked at $(mib "${worst[$to]}") MiB more than at rest; the budget is $(mib "$BUDGET") MiB" \
                holds "${worst[$to]} <= $(quick_or 1.3 1.1) * $BUDGET"
            if [ "$QUICK" -eq 1 ]; then continue; fi
            # shellcheck disable=SC2086 # several words
            p99=$(calculate %.2f "$(median ${p99s[$to]}) / $(median ${p99s[nothing]})")
            check "$says: p99 of 100 that read is $p99 times what it is while the others get nothing \
(us: ${p99s[$to]}, and${p99s[nothing]}; at most 1.5)" holds "$p99 <= 1.5"
        done
    done
}

# --- 4. Positions -----------------------------------------------------------------------------------

KEYS=100 HZ=60

# positions SAYS SERVE_ARGUMENT... -- LOAD_ARGUMENT...
positions() {
    local label="$backend, $KEYS positions at $HZ Hz to $1" late=$((POSITIONED / 10)) interval_us=$((1000000 / HZ))
    publishes "$label" --backend "$backend" --keys $KEYS --burst $KEYS --rate $HZ --frames $((KEYS * HZ * SECS)) \
        "${@:2}" --keys $KEYS --members "readers:$((POSITIONED - late)):latest:full:0" \
        --members "late:$late:latest:tenth:0"
    none_wrong "$label" readers late
    check "$label: $(closed drained) of $POSITIONED sessions were there until the drain; none got a torn frame" \
        [ "$(closed drained)" -eq "$POSITIONED" ]
    check "$label: $(of readers up_to_date) of $((POSITIONED - late)) at full pace and $(of late up_to_date) of $late \
at a tenth have the last frame of each key; $(served stats.superseded_frames) were superseded" \
        [ "$(of readers up_to_date) $(of late up_to_date)" = "$((POSITIONED - late)) $late" ]
    local logged
    logged=$(($(of readers latency_us.p99) + 2 * interval_us))
    note "$label: p99 at full pace $(ms "$(of readers latency_us.p99)") ms, at a tenth $(ms "$(of late latency_us.p99)") \
ms; until the kernel took them, frames waited $(ms "$(of late taken_us.p50)") ms (p99 $(ms "$(of late taken_us.p99)") ms)"
    local bytes bound
    bytes=$(($(loaded slow_sent_bytes.max) + $(loaded slow_received_bytes.max)))
    bound=$(calculate %.0f "$logged + 1000000 * $bytes / $(loaded slow_bytes_per_s)")
    in_full "$(of late latency_us.p99) <= $bound" "$label: p99 at a tenth is at most $(ms "$bound") ms: the kernel held up \
to $(($(loaded slow_sent_bytes.max) >> 10)) KiB for each at the server's side and \
$(($(loaded slow_received_bytes.max) >> 10)) KiB at its own, read at \
$(calculate %.0f "$(loaded slow_bytes_per_s) / 1000") kB/s; and two intervals beyond full pace"
}

part_4() {
    local backend
    POSITIONED=$(quick_or 100 500) SECS=$(quick_or 1 20)
    for backend in uring readiness; do
        positions "$POSITIONED, with small socket buffers" --kernel-bytes 16384 -- --receive-bytes 16384
        positions "$POSITIONED, with the kernel's socket buffers" --
    done
}

# --- 5. Stopped and continued -----------------------------------------------------------------------

publishing() { grep -q '^publishing' "$SERVED" || has_ended "$SERVER_PID"; }

# Stops the process that STOPPED names for STOP_S, in the middle of the flood.
stops() {
    wait_until 10 publishing || true
    sleep 0.2
    kill -STOP "${!STOPPED}"
    sleep "$STOP_S"
    kill -CONT "${!STOPPED}"
}

# stopped LABEL STOPPED STOP_S SLOW_AFTER_S: all that is published waits for the members, so that all of them are
# behind when the process is stopped, and no publisher waits. In the full version some read 100 kB/s: that is not slow,
# but until the stop it is less than a member must take within slow_after.
stopped() {
    local frames
    frames=20000 label="$backend, $1 stopped for $3 s, slow_after $4 s"
    STOPPED=$2 STOP_S=$3
    MEANWHILE=stops
    publishes "$label" --backend "$backend" --frames "$frames" --bytes 1024 --slow-after-ms $(($4 * 1000)) \
        --publications-bytes $((frames * 2048)) --kernel-bytes 65536 -- --receive-bytes 32768 \
        --members "readers:$((50 - STEADY)):close:full:0" --members "steady:$STEADY:close:100000:0"
    MEANWHILE=true
    check "$label: that was in the middle of the flood ($(calculate %.1f "$(loaded wall_s)") s)" \
        holds "$(loaded wall_s) > $3"
}

nobody_is_cut() {
    check "$label: $(of readers complete) of $((50 - STEADY)) at full pace and $(of steady complete) of $STEADY that read \
100 kB/s got every frame, $(closed 'slow consumer') were cut" \
        [ "$(of readers complete) $(of steady complete) $(closed drained)" = "$((50 - STEADY)) $STEADY 50" ]
    none_wrong "$label" readers steady
}

part_5() {
    local backend label STEADY
    STEADY=$(quick_or 0 5)
    for backend in uring readiness; do
        stopped "the server" SERVER_PID "$(quick_or 3 8)" "$(quick_or 2 5)"
        nobody_is_cut
        if [ "$QUICK" -eq 1 ]; then continue; fi
        stopped "the load" LOAD_PID 2 5
        nobody_is_cut
        stopped "the load" LOAD_PID 30 5
        check "$label: $(closed 'slow consumer') of 50 members were cut" [ "$(closed 'slow consumer')" -eq 50 ]
    done
}

for number in 1 2 3 4 5; do
    if part "$number"; then "part_$number"; fi
done
finish
