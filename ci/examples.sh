#!/usr/bin/env bash
# Runs each example once, as a user would, and checks that it does what it says. (mqtt, browser_chat, world: ci/show/.)
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
cargo build --release -q --workspace --examples
cargo build --release -q
with_tokio=examples/with_tokio/Cargo.toml
cargo fmt --manifest-path "$with_tokio" --check
cargo build --release -q --locked --manifest-path "$with_tokio" --target-dir "$target/with_tokio"

# awaits PORT: until the server that was started last listens there.
awaits() {
    for _ in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        kill -0 "${servers[-1]}" # it must not have ended
        read -rt 0.05 <> <(:) || true
    done
}
# serve EXAMPLE PORT [ARGUMENT...]: starts it, and waits until it listens.
serve() {
    "$target/release/examples/$1" "${@:3}" &
    servers+=($!)
    awaits "$2"
}
servers=()
scratch=$(mktemp -d)
trap 'kill "${servers[@]}" 2>/dev/null || true; rm -rf "$scratch"' EXIT

serve echo 7000
"$target/release/wharf" load echo --target 127.0.0.1:7000 --sessions 50 --secs 1
echo "examples: echo serves on 127.0.0.1:7000"

# Every byte comes back through the gateway too, and so does what a peer that has finished its direction is owed.
# The gateway does not read while its client is slow, so its target is the echo that waits for a slow reader.
"$target/release/wharf" echo --listen 127.0.0.1:7004 >"$scratch/target" &
servers+=($!)
awaits 7004
serve gateway 7003 127.0.0.1:7003 127.0.0.1:7004
"$target/release/wharf" load echo --target 127.0.0.1:7003 --sessions 50 --secs 1
head -c 8000000 /dev/urandom >"$scratch/sent"
socat -t 60 - TCP:127.0.0.1:7003 <"$scratch/sent" >"$scratch/came"
cmp "$scratch/sent" "$scratch/came"
echo "examples: the gateway brings back every byte"

# ann and bob are in a room, cid elsewhere; each line is waited for before the next is said.
serve chat 7001 127.0.0.1:7001
hears() { # DESCRIPTOR LINE: the line comes, whatever comes before it
    local line
    while read -rt 10 -u "$1" line; do
        if [ "$line" = "$2" ]; then return; fi
    done
    echo "examples: the chat did not say: $2" >&2
    exit 1
}
come() { # DESCRIPTOR NAME ROOM
    eval "exec $1<>/dev/tcp/127.0.0.1/7001"
    printf '/nick %s\n/join %s\n' "$2" "$3" >&"$1"
    hears "$1" "* you are $2 in $3"
}
come 4 ann deck
come 5 cid cellar
come 6 bob deck
hears 4 "* bob came"
echo "/who" >&6
hears 6 "* in deck: ann bob"
echo "ahoy" >&4
hears 6 "ann: ahoy"
echo "/leave" >&6
hears 4 "* bob left"
echo "/join deck" >&5
hears 4 "* cid came"
echo "/quit" >&5
hears 4 "* cid left"
printf '%02000d\n' 0 >&6
hears 6 "* a line is too long"
echo "examples: chat serves rooms on 127.0.0.1:7001"

# What clients of Redis say, and a value of a megabyte.
serve resp 7005 127.0.0.1:7005
says() { # ANSWER COMMAND...: the answer to this command, as redis-cli prints it
    local answer
    answer=$(redis-cli -p 7005 "${@:2}" | tr '\n' ' ' | sed 's/ *$//')
    if [ "$answer" != "$1" ]; then
        echo "examples: resp said $answer to ${*:2}, not $1" >&2
        exit 1
    fi
}
says PONG ping
says "hello there" echo "hello there"
says OK set number 41
says 42 incr number
says OK set word wharf
says "42  wharf" mget number nothing word
says "ERR value is not an integer or out of range" incr word
says 2 del number word nothing
says "" get word
says "ERR unknown command" flush everything
head -c 1000000 /dev/urandom >"$scratch/value"
redis-cli -p 7005 -x set large <"$scratch/value" >/dev/null
redis-cli -p 7005 get large | head -c 1000000 | cmp - "$scratch/value"
# Commands in a line, an empty one, and one that breaks a rule; each in pieces of a byte.
printf 'PING\r\nset k 1\n\r\nGET k\r\n*1\r\n$4\r\nPING\r\n*1\r\n#4\r\n' >"$scratch/commands"
socat -b 1 -t 10 - TCP:127.0.0.1:7005 <"$scratch/commands" | tr -d '\r' >"$scratch/answers"
printf "+PONG\n+OK\n\$1\n1\n+PONG\n-ERR Protocol error: expected '\$'\n" | cmp - "$scratch/answers"
for deep in 1 16; do
    redis-benchmark -p 7005 -t ping,set,get,incr,mget -c 50 -n 20000 -P "$deep" -q >"$scratch/benchmark"
    ! grep -i error "$scratch/benchmark"
done
echo "examples: resp serves clients of Redis on 127.0.0.1:7005"

# A page of axum's lists the sessions of the same process, and sends to them.
"$target/with_tokio/release/with_tokio" 127.0.0.1:7006 127.0.0.1:7007 &
servers+=($!)
awaits 7007
ask() { # METHOD PATH [BODY]: the page's answer
    exec 8<>/dev/tcp/127.0.0.1/7007
    printf '%s %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s' "$1" "$2" "$(printf %s "${3-}" | wc -c)" "${3-}" >&8
    cat <&8
    exec 8>&-
}
answers() { # TEXT METHOD PATH [BODY]
    local answer
    for _ in $(seq 100); do # what the page shows changes when a session has begun, or is over
        answer=$(ask "${@:2}")
        if [[ $answer == *"$1" ]]; then return; fi
        read -rt 0.05 <> <(:) || true
    done
    echo "examples: the page of with_tokio answered $answer to ${*:2}" >&2
    exit 1
}
exec 7<>/dev/tcp/127.0.0.1/7006
printf 'one\ntwo\n' >&7
answers " 2" GET /
id=$(ask GET / | awk '/ 127.0.0.1:/ { print $1 }')
answers said POST "/say/$id" ahoy
hears 7 ahoy
exec 7>&-
answers "it has gone" POST "/say/$id" ahoy
echo "examples: with_tokio serves lines on 127.0.0.1:7006, and a page on 127.0.0.1:7007"
