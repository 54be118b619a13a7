#!/usr/bin/env bash
# Breaks the sessions, the framings and the transports in every small way that cargo-mutants knows, one at a time, and
# sees whether the fast tests notice: the unit tests beside the code, and the fuzzer's corpora. What
# survives is listed; docs/mutants.md says of each survivor why it may.
#
# In pieces, each of some minutes. A piece that has run for the sources as they are is not run again,
# so the script can be stopped at any time and goes on where it was. cargo-mutants is installed where
# it is missing. The work is done on a copy of the tree.
#
# usage: ci/mutants.sh            all pieces, then the sums
#        ci/mutants.sh K          piece K (0 to PIECES - 1)
#        ci/mutants.sh --again    only what survived, after tests were added; then the sums
#        ci/mutants.sh --sums     the sums of what has run
set -euo pipefail
cd "$(dirname "$0")/.."

PIECES=${PIECES:-8}
FILES=()
for place in session framing transport/web_socket; do FILES+=(--file "crates/wharf/src/$place/*.rs"); done
TESTS=(fuzzing:: session:: framing:: transport::)
# A mutant that goes round for ever is noticed by this; all the tests take two seconds, on a machine
# that has nothing else to do.
TEST_SECONDS_MAX=60
KILLED_PERCENT_MIN=95

WORK=${CARGO_TARGET_DIR:-$PWD/target}/mutants
export CARGO_TARGET_DIR=$WORK/target CARGO_PROFILE_DEV_DEBUG=0
mkdir -p "$WORK"

command -v cargo-mutants >/dev/null || cargo install cargo-mutants --locked

sources() { git ls-files -z crates/wharf/src fuzz/corpus | xargs -0 sha256sum | sha256sum; }

# mutants OUTPUT ARGUMENT...: tests what the arguments select, and puts the results into OUTPUT.
mutants() {
    local output=$1 code=0
    shift
    rm -rf "$output"
    cargo mutants -p wharf-net --features websocket "${FILES[@]}" --output "$output" --no-shuffle --colors never \
        --timeout "$TEST_SECONDS_MAX" --cargo-arg=--lib "$@" -- -- "${TESTS[@]}" || code=$?
    # 2: some survived. 3: some did not end. Both are results.
    case $code in 0 | 2 | 3) ;; *) exit "$code" ;; esac
    for kind in caught timeout unviable missed; do
        cp "$output/mutants.out/$kind.txt" "$output/$kind"
    done
}

piece() { # K
    local output=$WORK/piece-$1 tested
    tested=$(sources)
    if [ "$(cat "$output/complete" 2>/dev/null)" = "$tested" ]; then return; fi
    printf '\n== piece %d of %d\n' "$1" "$PIECES"
    mutants "$output" --shard "$1/$PIECES"
    printf '%s\n' "$tested" >"$output/complete"
}

# What survived or did not end, by name: FILE:LINE:COLUMN: WHAT.
again() {
    local names=() name
    while read -r name; do
        names+=(--re "^$(sed 's/[][\\.*^$+?(){}|]/\\&/g' <<<"$name")\$")
    done < <(cat "$WORK"/piece-*/{missed,timeout} | sort -u)
    if [ ${#names[@]} -eq 0 ]; then return; fi
    mutants "$WORK/piece-again" "${names[@]}"
    for output in "$WORK"/piece-[0-9]*; do : >"$output/missed" && : >"$output/timeout"; done
}

sums() {
    lines() { sort -u "$WORK"/piece-*/"$1"; }
    local killed all
    killed=$(sort -u "$WORK"/piece-*/{caught,timeout} | wc -l)
    all=$((killed + $(lines missed | wc -l)))
    printf '\n== survivors\n'
    lines missed
    printf '\nmutants: %d of %d killed, %d of them by going round for ever; %d more do not compile\n' \
        "$killed" "$all" "$(lines timeout | wc -l)" "$(lines unviable | wc -l)"
    [ $((100 * killed)) -ge $((KILLED_PERCENT_MIN * all)) ]
}

case ${1-} in
--sums) sums ;;
--again)
    again
    sums
    ;;
?*) piece "$1" ;;
*)
    rm -rf "$WORK/piece-again"
    for ((k = 0; k < PIECES; k++)); do piece "$k"; done
    sums
    ;;
esac
