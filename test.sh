#!/bin/sh
# Runs all tests: formatting, lints, unit and black-box tests, the web application's tests, and those of the whole in
# real containers. Installs what it lacks, uses names, networks and ports of its own, and removes what it started.
#
# Usage: ./test.sh    (as root)
set -eu

say() { echo "==> $*"; }
die() {
    echo "test.sh: $*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

case ${1:-} in
    '') ;;
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    *) die "unknown argument '$1', see --help" ;;
esac
cd "$(dirname "$0")"
PATH=${HOME:-/root}/.cargo/bin:$PATH # as in provision.sh
results=target/test-results.log

# What the tests themselves need: the programs that the tools talk to, and the linters.
install_missing() {
    ./provision.sh
    missing=
    for program in haproxy serf strace faketime shellcheck docker-compose chromium jq pngquant; do
        have "$program" || missing="$missing $program"
    done
    have man || missing="$missing man-db"
    have c++ || missing="$missing g++" # the fuzzer is written in it
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        if have rustup; then
            rustup component add rustfmt clippy
        elif apt-cache show rust-clippy >/dev/null 2>&1; then
            missing="$missing rustfmt rust-clippy"
        fi
    fi
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || die "missing:$missing: run this as root"
    say "installing$missing"
    apt-get update >target/apt.log 2>&1 || die "apt-get update: $(tail -n 1 target/apt.log)"
    # shellcheck disable=SC2086 # a list of packages
    # RUNLEVEL: the services that come with them are not to be started.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >target/apt.log 2>&1 ||
        die "apt-get install$missing: $(tail -n 1 target/apt.log)"
}

# Runs a command, shows what it prints, and keeps that for the count at the end.
counted() {
    status=$results.status
    { "$@" 2>&1 && echo 0 >"$status" || echo 1 >"$status"; } | tee -a "$results"
    [ "$(cat "$status")" = 0 ] || die "failed: $*"
}

# Whatever tests that failed or were interrupted left behind.
clean_up() {
    docker ps --all --quiet --filter name=^/e2e | xargs -r docker rm --force --volumes >/dev/null
    docker network ls --quiet --filter name=^e2e | xargs -r docker network rm >/dev/null
}

mkdir -p target
: >"$results"
trap 'exit 130' INT
trap 'exit 143' TERM
install_missing
trap clean_up EXIT

say "formatting and lints"
cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings
git ls-files -z '*.sh' 'services.d/*/run' 'services.d/*/log/run' 'services.d/*/finish' bench/run fuzz/run base/init base/with-contenv 'base/cont-init.d/*' 'debian/p*' .ci/run |
    xargs -0 shellcheck

say "unit and black-box tests"
counted cargo test --locked --no-fail-fast --workspace --exclude e2e

say "fuzz targets, 10 s each"
SEED=1 ./fuzz/run 10

./build-images.sh

say "tests of the web application, in its image"
counted docker run --rm --name e2e-webapp --entrypoint node --workdir /app --volume "$PWD/webapp/app:/app:ro" \
    softengheigvd/webapp --test --test-reporter=tap

say "tests of the whole, in containers"
counted cargo test --locked --no-fail-fast -p e2e

say "no request lost while everything changes"
./bench/churn

awk '
    /^test result:/ { passed += $4; failed += $6 }
    /^# pass / { passed += $3 }
    /^# fail / { failed += $3 }
    END { print passed + 0 " passed, " failed + 0 " failed" }' "$results"
