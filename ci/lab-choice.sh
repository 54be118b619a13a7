#!/usr/bin/env bash
# Checks which faults `ci/lab --minutes` would run, in what order and why: in a repository of its own with four
# faults in two rooms, none of which is ever run.
set -euo pipefail
lab=$(cd "$(dirname "$0")" && pwd)/lab
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null CARGO_TARGET_DIR=$scratch/target
unset GIT_DIR GIT_WORK_TREE

commit() { git add -A && git -c user.name=t -c user.email=t@localhost commit -q -m "$@"; }

# fault NAME FILE [TEST]: one that patches the file, and that the integration test catches.
fault() {
    mkdir -p "lab/$1"
    printf -- '--- a/%s\n+++ b/%s\n' "$2" "$2" >"lab/$1/fault.patch"
    printf 'tests 1 cargo test -q -p wharf-net --test %s one\n' "${3-none}" >"lab/$1/catch"
}

# are TEXT WANTED ARGUMENT...: the faults that `ci/lab --list ARGUMENT...` names, and why, in this order.
are() {
    local is
    is=$(ci/lab --list "${@:3}" | sed -n 's/^patch  *\([a-z]*\)  *\(.*\)/\1 (\2)/p' | paste -sd' ')
    if [ "$is" != "$2" ]; then
        printf 'FAILED  %s\n        wanted: %s\n        is:     %s\n' "$1" "$2" "$is" && exit 1
    fi
    printf 'ok      %s\n' "$1"
}

sources=crates/wharf/src
mkdir -p ci $sources/worker $sources/session crates/wharf/tests
cp "$lab" ci/lab
echo /target >.gitignore
touch $sources/worker/{end,turn,idle}.rs $sources/session/{count,table}.rs $sources/timer.rs crates/wharf/tests/order.rs
fault ends $sources/worker/end.rs
fault turns $sources/worker/turn.rs
fault counts $sources/session/count.rs
fault waits $sources/timer.rs order
git init -q -b main
commit first
git branch upstream

echo 1 >$sources/worker/turn.rs && commit second
are "the file first, then its room, then the others" \
    "turns (changed: $sources/worker/turn.rs) ends (a room that changed: $sources/worker) counts (in turn) waits (in turn)" \
    --turn 0
echo 1 >$sources/worker/idle.rs && commit third
echo 1 >crates/wharf/tests/order.rs && commit fourth
are "without an upstream, what the last commit brought; a test that catches counts" \
    "waits (changed: crates/wharf/tests/order.rs) counts (in turn) ends (in turn) turns (in turn)" --turn 0
git branch -q -u upstream
are "all that the branch has and its upstream has not" \
    "turns (changed: $sources/worker/turn.rs) waits (changed: crates/wharf/tests/order.rs) ends (a room that changed: $sources/worker) counts (in turn)" \
    --turn 0
are "or what has come since a commit that is named" \
    "waits (changed: crates/wharf/tests/order.rs) counts (in turn) ends (in turn) turns (in turn)" --turn 0 --since HEAD^
are "at another turn, another of the others is the first" \
    "waits (changed: crates/wharf/tests/order.rs) turns (in turn) counts (in turn) ends (in turn)" --turn 700 --since HEAD^
git branch -qf upstream main
are "of a branch that its upstream has, what the last commit brought" \
    "waits (changed: crates/wharf/tests/order.rs) counts (in turn) ends (in turn) turns (in turn)" --turn 0
echo 2 >$sources/session/table.rs
are "what is not committed has changed too" \
    "waits (changed: crates/wharf/tests/order.rs) counts (a room that changed: $sources/session) turns (in turn) ends (in turn)" \
    --turn 500 --since HEAD^
git checkout -q $sources/session/table.rs && echo 1 >lab/counts/notes
are "so has what is new; a fault's own folder counts" \
    "counts (changed: lab/counts/notes) ends (in turn) turns (in turn) waits (in turn)" --turn 0 --since HEAD
rm lab/counts/notes
turn_of_a_commit_at() { # SECOND
    GIT_COMMITTER_DATE="@$1 +0000" commit "at $1" --allow-empty
    ci/lab --list --minutes 6 | sed -n 's/.*; turn //p'
}
turns="$(turn_of_a_commit_at 1000000100) $(turn_of_a_commit_at 1000000900)"
[ "$turns" = "100 900" ] || { echo "FAILED  the turns of two commits are: $turns" && exit 1; }
echo "ok      each commit has its turn, by its time"
git clone -q --depth 1 "file://$scratch" shallow && cd shallow
are "a clone that knows no history has turns all the same" \
    "turns (in turn) waits (in turn) counts (in turn) ends (in turn)" --turn 500
names=$(ci/lab --list --mutants | awk '{ print $2 }' | paste -sd' ')
[ "$names" = "counts ends turns waits" ] ||
    { echo "FAILED  without --minutes there are: $names" && exit 1; }
echo "ok      without --minutes, all"
