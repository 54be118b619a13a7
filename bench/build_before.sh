#!/usr/bin/env bash
# Builds `peer-wharf` of another commit as this tree builds its own, and prints where it is: for `before.sh` and
# `instructions.sh`. The commit's tree stays under the target directory (`git worktree remove` takes it away).
#
#   bench/build_before.sh COMMIT
set -euo pipefail
cd "$(dirname "$0")"

PLACE=$(realpath -m "${CARGO_TARGET_DIR:-target}")/before
COMMIT=$(git rev-parse --verify --short "${1:?which commit?}^{commit}")
mkdir -p "$PLACE"
git worktree prune
if [ -e "$PLACE/tree" ]; then
    git -C "$PLACE/tree" checkout --quiet --detach --force "$COMMIT"
else
    git worktree add --quiet --detach "$PLACE/tree" "$COMMIT"
fi
# With the load, as `wharf-bench --before` builds its own: what both share is built with the same features.
(cd "$PLACE/tree/bench" &&
    CARGO_TARGET_DIR=$PLACE/target cargo build --release --quiet --locked -p peer-wharf -p load) >&2
cp "$PLACE/target/release/peer-wharf" "$PLACE/peer-wharf-$COMMIT"
echo "$PLACE/peer-wharf-$COMMIT"
