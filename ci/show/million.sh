#!/usr/bin/env bash
# Each of a million sessions costs what each of ten thousand does.
#
# Method: crates/wharf-sim/examples/million.rs opens so many sessions in a simulated world, each with a timer and in a
# group, echoes each once, publishes to all, lets the timers fire and drains. Callgrind counts the instructions, and
# million.py takes those of the simulated world away; what it says is for each session. The bytes for each session are
# those that a counting allocator has seen, less what the world says that it holds.
#
# usage: ci/show/million.sh [--quick]      1,000 and 10,000; else 10,000, 100,000 and 1,000,000 (ten to twenty minutes)
#
# Of a thousand sessions each costs a little less: the worker keeps the memory of so many sends.
set -euo pipefail
WHARF=/bin/true # not needed
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need valgrind cargo

read -ra SIZES <<<"$(quick_or '1000 10000' '10000 100000 1000000')"
RATIO_MAX=1.1
BYTES_MAX=1024

cargo build --release --quiet --manifest-path "$ROOT/Cargo.toml" -p wharf-sim --example million ||
    cannot "the example could not be built"
for size in "${SIZES[@]}"; do
    counts=$SCRATCH/counts.$size
    if ! valgrind --tool=callgrind --dump-before='million::Million::phase_*' --callgrind-out-file="$counts" \
        "$TARGET_DIR/release/examples/million" "$size" >"$SCRATCH/said" 2>"$SCRATCH/errors"; then
        fail "$size sessions: $(tail -n 3 "$SCRATCH/errors")"
        continue
    fi
    note "$size sessions; instructions for each outside the simulated world, and in it:"
    # The first was written before the first phase, and the last after the drain.
    python3 "$SHOW/million.py" "$size" "$counts".{2,3,4,5,6} >"$SCRATCH/table"
    while read -r line; do note "  $line"; done <"$SCRATCH/table"
    grep '^bytes' "$SCRATCH/said" | while read -r line; do note "  $line"; done
    all=$(awk '$1 == "all" { print $2 }' "$SCRATCH/table")
    : "${first:=$all}"
    ratio=$(calculate '%.3f' "$all / $first")
    check "$size sessions: each costs $ratio of what each of ${SIZES[0]} does, at most $RATIO_MAX" \
        holds "$ratio <= $RATIO_MAX && $all > 1000"
    bytes=$(sed -n 's/^bytes opened: wharf \([0-9]*\).*/\1/p' "$SCRATCH/said")
    check "$size sessions: $bytes bytes for each that is open, has a timer and is in a group, at most $BYTES_MAX" \
        holds "$bytes <= $BYTES_MAX && $bytes > 0"
done
finish
