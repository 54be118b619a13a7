# What the rings of tests share: steps with a name, what each of them said, and what took how long. The first
# that fails ends the script, which says at last which it was.
# Sourced, not run.

LOGS=$(mktemp -d) # a file for each step, of its name
TIMES=""
STEP=""           # the one that is going on
BESIDE=()         # the name and the process of the step that goes on beside others

end_steps() {
    local code=$?
    [ ${#BESIDE[@]} -eq 0 ] || kill -TERM -- "-${BESIDE[1]}" 2>/dev/null || true
    rm -rf "$LOGS"
    if [ "$code" -ne 0 ] && [ -n "$STEP" ]; then
        printf '\n%s\nFAILED: %s (after %d s in all)\n' "$TIMES" "$STEP" "$SECONDS"
    fi
}
trap end_steps EXIT
trap 'exit 1' INT TERM

took() { # NAME SINCE
    TIMES+=$(printf '%6d s  %s' $((SECONDS - $2)) "$1")$'\n'
    printf -- '-- %s: %d s\n' "$1" $((SECONDS - $2))
}

# step NAME COMMAND...
step() {
    local started=$SECONDS
    STEP=$1
    printf '\n== %s\n' "$STEP"
    "${@:2}" 2>&1 | tee "$LOGS/$STEP"
    took "$STEP" "$started"
    STEP=""
}

# beside NAME COMMAND...: begins a step that goes on, and is silent, while others run; one at a time. For what
# only compiles or computes. Never beside a step that judges times.
beside() {
    printf '\n== %s: begins, beside what follows\n' "$1"
    set -m # a process group of its own, to be ended as a whole
    "${@:2}" >"$LOGS/$1" 2>&1 </dev/null &
    set +m
    BESIDE=("$1" $!)
}

# Waits for its end, and says what it said; its seconds are those that were waited for it.
end_beside() {
    local started=$SECONDS code=0
    STEP=${BESIDE[0]}
    wait "${BESIDE[1]}" || code=$?
    BESIDE=()
    printf '\n== %s\n' "$STEP"
    cat "$LOGS/$STEP"
    [ "$code" -eq 0 ] || exit "$code"
    took "$STEP, the rest of it" "$started"
    STEP=""
}

what_took_how_long() { printf '\n== what took how long\n%s%6d s  in all\n' "$TIMES" "$SECONDS"; }
