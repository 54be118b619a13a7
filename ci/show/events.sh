#!/usr/bin/env bash
# A loop that takes `wharf::events` stands still for 2 s under load, on each port: nothing is lost or reordered, and
# memory keeps its bound.
#
# Method: `wharf-soak events` (crates/wharf-soak/src/events.rs). 41 peers send numbered frames as fast as they can. The
# loop takes them and checks each; every 2 s it stands still for 2 s. What waits then is what was received less what was
# taken: it must come near the bound and not pass it by more than a frame of each session. Resident memory is the whole
# process's, the peers' threads with it.
#
# usage: ci/show/events.sh [--quick]      stands still once; else five times
set -euo pipefail
WHARF=/bin/true # not needed
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need cargo
STOPS=$(quick_or 1 5)

cargo build --release --quiet --manifest-path "$ROOT/Cargo.toml" -p wharf-soak || cannot "the soak could not be built"
for backend in uring readiness; do
    code=0
    timeout $((STOPS * 4 + 120)) "$TARGET_DIR/release/wharf-soak" events --backend "$backend" --stops "$STOPS" \
        >"$SCRATCH/said" 2>&1 || code=$?
    if [ "$code" -eq 2 ] && grep -q 'cannot be had here' "$SCRATCH/said"; then
        note "$backend cannot be had here: not tried"
        continue
    fi
    check "$(head -n 1 "$SCRATCH/said")" [ "$code" -eq 0 ]
    [ "$code" -eq 0 ] || tail -n +2 "$SCRATCH/said"
done
finish
