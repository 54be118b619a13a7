#!/usr/bin/env bash
# Whole workers, and six threads of the user's around them, on schedules that shuttle draws at random
# (crates/wharf/src/models/mix): a shared port and a port each, with every switch as likely as another
# and with few at chosen places (PCT).
#
#   ci/shuttle.sh          10,000 schedules of each of the four
#   ci/shuttle.sh --full   300,000
#
# What fails says its seed; SHUTTLE_RANDOM_SEED=… tries it again.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/models.sh
. ci/models.sh

case "${1-}" in
    '') schedules=10000 ;;
    --full) schedules=300000 ;;
    *) echo "usage: ci/shuttle.sh [--full]" >&2 && exit 2 ;;
esac
export SHUTTLE_SCHEDULES=${SHUTTLE_SCHEDULES:-$schedules} SHUTTLE_SILENCE_WARNINGS=1
build_models shuttle
run_models
