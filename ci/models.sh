# What ci/loom.sh and ci/shuttle.sh share: building the tests with a checker in the place of the
# standard library's locks and atomics, and running those that are models. Sourced, not run.
#
# The builds have a folder each under the target folder, so that nothing of the usual build is made
# anew. They are optimized, with all assertions: a model makes millions of executions.

# build_models CHECKER: sets MODELS, the binary of the tests.
build_models() {
    export RUSTFLAGS="--cfg $1"
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/$1
    export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_LTO=off
    export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0
    cargo test --release -p wharf-net --lib --no-run
    MODELS=$(cargo test --release -p wharf-net --lib --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    [ -x "$MODELS" ] || { echo "no binary of the tests was built" >&2 && exit 1; }
}

# run_models [NAME]: runs those whose name begins so, or all but those that MODELS_SKIP names; two at a time.
run_models() {
    "$MODELS" "models::${1-}" --nocapture --test-threads 2 ${MODELS_SKIP:+--skip "$MODELS_SKIP"}
}

list_models() { "$MODELS" models:: --list; }
