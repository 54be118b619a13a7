#!/usr/bin/env bash
# The `browser_chat` example, played in headless Chromium by the DevTools protocol. On each port:
#
# 1. The page comes from the listener itself. Two tabs and a peer that reads lines are in a room; a third tab is in
#    another. Each line comes to all of the room, whole and in the same order, and to nobody else. Pictures of 64 KiB and
#    1 MiB come to the other tab, every byte.
# 2. Each end has its code: 1000, 1009 with its reason, the program's own 4001 and 4002 with theirs, 1001 when the server
#    drains. Another path opens nothing.
# 3. After the drain a server starts at the same addresses: both pages come back without a click.
# 4. A page of another origin, and one of none, gets no connection; where its origin is named, it does.
#
# --quick has 30 lines instead of 600.
#
# usage: ci/show/browser_chat.sh [--quick]
set -euo pipefail
# shellcheck source=ci/show/lib.sh
. "$(dirname "$0")/lib.sh"
read_arguments "$@"
need setpriv chromium # Debian has it in chromium
build_examples

# The client of the DevTools protocol, in an environment of its own that is kept under the target directory.
CLIENT=$TARGET_DIR/websockets
if ! "$CLIENT/bin/python" -c 'import websockets.sync.client' 2>/dev/null; then
    { rm -rf "$CLIENT" && python3 -m venv "$CLIENT" && "$CLIENT/bin/pip" install -q 'websockets>=13,<17'; } >&2 ||
        cannot "websockets cannot be had (Debian has venv in python3-venv)"
fi

for backend in uring readiness; do
    code=0 began=$SECONDS
    TMPDIR=$SCRATCH timeout "$(quick_or 120 300)" "$CLIENT/bin/python" "$SHOW/browser_chat.py" \
        "$TARGET_DIR/release/examples/browser_chat" "$backend" "$(quick_or 30 600)" >"$SCRATCH/checks" 2>&1 || code=$?
    check "$backend: $(grep -c '^ok ' "$SCRATCH/checks") checks; $(tail -n 1 "$SCRATCH/checks") \
($((SECONDS - began)) s)" [ "$code" -eq 0 ]
    if [ "$code" -ne 0 ]; then sed 's/^/        /' "$SCRATCH/checks"; fi
done
finish
