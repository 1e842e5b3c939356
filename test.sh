#!/bin/sh
# Runs the tests. Installs what they need, uses its own names, networks and
# ports, and removes what it started.
#
# Usage: ./test.sh [PART...]    (as root; default: all parts except the
#        last three)
#
# lint          formatting, lints and the documentation's links, with the oldest
#               Rust that is supported
# unit          unit tests and black-box tests of the tools
# fuzz          each fuzz target for 5 s
# containers    the web application in its image, and everything in containers
# churn         no request is lost while everything changes
# bare          both commands of the README on bare Debian 12 and 13 machines,
#               in systemd-nspawn; takes an hour
# machines      stack.yaml on three machines, each a Docker engine in a network of
#               its own; takes a quarter of an hour
# hosts         the Debian package on five hosts, in systemd-nspawn, with
#               keepalived; takes ten minutes
#
# RUST_TEST_THREADS=N    so many tests at once: twice as many as cores unless set,
#                        because most of them wait most of the time
set -eu
cd "$(dirname "$0")"
. ./scripts.sh

results=target/test-results.log

# Installs the programs that the tools talk to, and the linters.
install_missing() {
    missing=
    for program in haproxy serf strace faketime shellcheck docker-compose chromium jq pngquant pebble prometheus; do
        have "$program" || missing="$missing $program"
    done
    have certutil || missing="$missing libnss3-tools"
    have man || missing="$missing man-db"
    have c++ || missing="$missing g++" # for libFuzzer
    # shellcheck disable=SC2086 # a list of packages
    ./provision.sh $missing
}

# Runs a command, shows its output, and keeps it for the count at the end.
counted() {
    status=$results.status
    { "$@" 2>&1 && echo 0 >"$status" || echo 1 >"$status"; } | tee -a "$results"
    [ "$(cat "$status")" = 0 ] || die "failed: $*"
}

lint() {
    # Found by their first line, because git refuses to list files in another user's clone.
    scripts=$(find . \( -name .git -o -name target \) -prune -o -type f -exec awk 'FNR == 1 && /^#!.*[\/ ]sh$/ { print FILENAME } { nextfile }' {} +)
    # shellcheck disable=SC2086 # a list of files
    shellcheck -x $scripts
    ./build-images.sh rust
    cargo fetch --locked
    mkdir -p target/lint
    for command in 'fmt --all --check' 'clippy --locked --offline --workspace --all-targets -- -D warnings' \
        'doc --locked --offline --workspace --no-deps'; do
        # shellcheck disable=SC2086 # a command
        docker run --rm --name e2e-lint --network none --workdir /src --volume "$PWD:/src:ro" --volume "$PWD/target/lint:/target" \
            --volume "${CARGO_HOME:-${HOME:-/root}/.cargo}/registry:/root/.cargo/registry" --env CARGO_TARGET_DIR=/target \
            --env RUSTDOCFLAGS=-Dwarnings softengheigvd/rust cargo $command
    done
}

unit() { counted cargo test --locked --no-fail-fast --workspace --exclude e2e; }

fuzz() { SEED=1 ./fuzz/run 5; }

containers() {
    ./build-images.sh
    # As root: other users may not be able to read the clone.
    counted docker run --rm --name e2e-webapp --user 0 --entrypoint node --workdir /app \
        --volume "$PWD/webapp/app:/app:ro" softengheigvd/webapp --test --test-reporter=tap
    counted cargo test --locked --no-fail-fast -p e2e
}

churn() { ./bench/churn; } # builds the images

bare() { counted crates/e2e/bare; }

machines() { counted crates/e2e/machines; } # builds the images

hosts() { counted crates/e2e/hosts; }

# Removes what failed or interrupted tests left behind, and prints the counts.
finish() {
    code=$?
    docker ps --all --quiet --filter name=^/e2e | xargs -r docker rm --force --volumes >/dev/null
    docker network ls --quiet --filter name=^e2e | xargs -r docker network rm >/dev/null ||
        say "Docker cannot remove these networks of the tests: restart its engine" # it may hold endpoints of containers that are gone
    awk -v code="$code" '
        /^test result:/ { passed += $4; failed += $6 }
        /^# pass / { passed += $3 }
        /^# fail / { failed += $3 }
        /^[0-9]+ passed, [0-9]+ failed/ { passed += $1; failed += $3; skipped += $5 }
        END {
            if (code && !failed) failed = 1 # a part without a count failed
            print passed + 0 " passed, " failed + 0 " failed" (skipped ? ", " skipped " skipped" : "")
        }' "$results"
}

case ${1:-} in -h | --help) help ;; esac
[ $# -gt 0 ] || set -- lint unit fuzz containers churn
for part in "$@"; do
    case $part in
        lint | unit | fuzz | containers | churn | bare | machines | hosts) ;;
        *) die "unknown part '$part', see --help" ;;
    esac
done
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((2 * $(nproc)))}"
mkdir -p target
: >"$results"
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
install_missing
trap finish EXIT
for part in "$@"; do
    say "$part"
    begin=$(date +%s)
    "$part"
    say "$part: $(($(date +%s) - begin)) s"
done
