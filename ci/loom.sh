#!/usr/bin/env bash
# The models of what several threads touch (crates/wharf/src/models), taken by loom through all of
# their executions: three threads, every value that the memory model lets a thread see, and every order
# of their steps with at most so many preemptions (switches away from a thread that could have gone on).
#
#   ci/loom.sh          3 preemptions (2 on every change)
#   ci/loom.sh --full   4 preemptions; 5 or any number in those that are small enough
#   ci/loom.sh --build  builds them, and no more
#
# One model with another bound: LOOM_MAX_PREEMPTIONS=5 ci/loom.sh count::two
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/models.sh
. ci/models.sh

# with PREEMPTIONS [MODEL]
with() { LOOM_MAX_PREEMPTIONS=$1 run_models "${2-}"; }
without_bound() { (unset LOOM_MAX_PREEMPTIONS && run_models "$1"); }

build_models loom
case "${1-}" in
    --build) ;;
    --full)
        with 4
        for model in count ending free_slots half::a_request mailbox; do with 5 "$model"; done
        for model in count::what mailbox::what; do without_bound "$model"; done
        ;;
    --*) echo "usage: ci/loom.sh [--full | --build | MODEL]" >&2 && exit 2 ;;
    *) with "${LOOM_MAX_PREEMPTIONS:-3}" "${1-}" ;;
esac
