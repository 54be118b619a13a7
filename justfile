# What people do here, by name. Each is a command that can be typed without just (cargo install just).

# What there is.
default:
    @just --list --unsorted

# Every few lines: format, clippy, the library's tests, 60 simulated seeds; under 3 minutes.
quick:
    ci/quick

# Every test of the workspace: just test -p wharf-net order
test *ARGUMENTS="--workspace":
    cargo test {{ARGUMENTS}}

# On every change: all that must hold; under half an hour.
ci:
    .ci/run

# Hours: all, or the pieces that are named: just long --list
long *PIECES:
    ci/long {{PIECES}}

# Simulated seeds, every assertion on: just sim --seeds 5000
sim *ARGUMENTS="--seeds 600":
    cargo run --profile simulation -- sim {{ARGUMENTS}}

# Faults on purpose, all or those that are named: just lab --minutes 6
lab *ARGUMENTS:
    ci/lab {{ARGUMENTS}}

# What threads share, in every execution: just loom count::two
loom *ARGUMENTS:
    ci/loom.sh {{ARGUMENTS}}

# Whole workers, on schedules drawn at random.
shuttle *ARGUMENTS:
    ci/shuttle.sh {{ARGUMENTS}}

# What knows no operating system, under Miri.
miri *ARGUMENTS:
    ci/miri.sh {{ARGUMENTS}}

# The real ports under everything at once: just soak 20
soak *ARGUMENTS:
    ci/soak {{ARGUMENTS}}

# wharf beside other servers; --quick says whether it works here.
bench *ARGUMENTS="--quick":
    cd bench && cargo run --release -- {{ARGUMENTS}}

# Everything of Windows, under Wine; --quick is what ci runs.
windows *ARGUMENTS:
    ci/windows.sh {{ARGUMENTS}}

# WebSocket judged by strangers, by all or those that are named: just foreign autobahn
foreign *ARGUMENTS:
    ci/foreign.sh {{ARGUMENTS}}

# The library's public face, compared with crates/wharf/api.txt; --renew writes it.
face *ARGUMENTS:
    ci/face.sh {{ARGUMENTS}}

# The packages that are published, compiled with the least compiler.
packages:
    ci/packages.sh

# What wharf depends on: licenses, duplicates, sources, advisories.
dependencies:
    ci/deny.sh

# The documentation: just docs --open
docs *ARGUMENTS:
    cargo doc --workspace --no-deps {{ARGUMENTS}}
