#!/usr/bin/env bash
# Runs every fuzz target for so many seconds, from the committed corpus and from what earlier runs
# found on this machine, and says how much was executed and covered. A crash is a failure; the input
# that makes it is named: put it into `fuzz/corpus/TARGET/` and `cargo test` has it from then on.
#
# What is missing (cargo-fuzz, nightly) is installed. New inputs go to the target directory only;
# --minimise replaces the committed corpora by the smallest sets of small inputs that reach the same.
#
# usage: ci/fuzz.sh [SECONDS]
#        ci/fuzz.sh --minimise
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET=x86_64-unknown-linux-gnu
TARGETS=(framing session timer buffer web_socket_cut upgrade_head)
# Long enough for any way through the code, short enough to be read.
INPUT_BYTES_MAX=512
WORK=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
export CARGO_TARGET_DIR=$WORK

seconds=60 minimise=
case ${1-} in
--minimise) minimise=yes ;;
?*) seconds=$1 ;;
esac

rustup run nightly rustc --version || rustup toolchain install nightly --profile minimal
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
cargo +nightly fuzz build --target "$TARGET"

fuzzer() { # TARGET ARGUMENT...
    local target=$1
    shift
    "$WORK/$TARGET/release/$target" -max_len="$INPUT_BYTES_MAX" -timeout=10 \
        -artifact_prefix="$WORK/$target-" "$@"
}

if [ -n "$minimise" ]; then
    for target in "${TARGETS[@]}"; do
        rm -rf "$WORK/minimised" && mkdir "$WORK/minimised"
        fuzzer "$target" -set_cover_merge=1 "$WORK/minimised" "fuzz/corpus/$target" \
            "$WORK/corpus/$target" 2>"$WORK/$target.log"
        rm -rf "fuzz/corpus/$target" && mv "$WORK/minimised" "fuzz/corpus/$target"
        printf '%-14s %5d inputs, %7d bytes\n' "$target" "$(find "fuzz/corpus/$target" -type f | wc -l)" \
            "$(cat "fuzz/corpus/$target"/* | wc -c)"
    done
    exit
fi

failed=()
report=$(printf '%-14s %12s %9s %9s %7s' target executions coverage features inputs)
for target in "${TARGETS[@]}"; do
    mkdir -p "$WORK/corpus/$target"
    printf '\n== %s, %d s\n' "$target" "$seconds"
    fuzzer "$target" -max_total_time="$seconds" -print_final_stats=1 "$WORK/corpus/$target" \
        "fuzz/corpus/$target" 2>"$WORK/$target.log" || failed+=("$target")
    grep -aE '^(thread .* panicked|assertion|  left:|  right:|SUMMARY|.*Test unit written)' \
        "$WORK/$target.log" || true
    executions=$(awk '/^stat::number_of_executed_units:/ { print $2 }' "$WORK/$target.log")
    # "#640794 DONE cov: 348 ft: 1511 corp: 238/14491b …"
    report+=$'\n'$(awk -v target="$target" -v executions="${executions:-0}" '
        /^#[0-9]+/ { for (i = 1; i < NF; i++) value[$i] = $(i + 1) }
        END { split(value["corp:"], corpus, "/")
              printf "%-14s %12d %9d %9d %7d", target, executions, value["cov:"], value["ft:"], corpus[1] }
    ' "$WORK/$target.log")
done
printf '\n%s\n' "$report"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[*]}"
    exit 1
fi
