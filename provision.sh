#!/bin/sh
# Installs what the lab needs on a Debian 12 or 13 machine (the Docker engine,
# Rust 1.85 or newer, a C linker, debootstrap) and starts the engine. Does
# nothing if everything is there. The other scripts call it.
#
# Usage: ./provision.sh [PACKAGE...]    (as root)
#
# PACKAGE    additional packages to install; their services are not started
set -eu
cd "$(dirname "$0")"
. ./scripts.sh

rust=1.85
log=/var/log/lab-provision.log
[ -w /var/log ] || log=/dev/null
export DEBIAN_FRONTEND=noninteractive

need_root() { [ "$(id -u)" = 0 ] || die "$1: run this as root"; }

# Waits for another apt that is installing, and fails if a mirror does not answer.
apt() { logged "$log" apt-get -o APT::Update::Error-Mode=any -o DPkg::Lock::Timeout=300 "$@"; }

# apt itself does not wait for another one that is updating the package lists.
wait_for_package_lists() {
    tries=300
    while grep -q ":$(stat -c %i /var/lib/apt/lists/lock 2>/dev/null || echo none) " /proc/locks; do
        [ "$tries" != 300 ] || say "waiting for another apt to read the package lists"
        [ "$tries" != 0 ] || return 0
        tries=$((tries - 1))
        sleep 1
    done
}

update_package_lists() {
    [ -z "${updated:-}" ] || return 0
    wait_for_package_lists
    say "reading Debian's package lists"
    apt update
    updated=yes
}

install_packages() {
    need_root "missing: $*"
    have apt-get || die "missing: $*: this is not Debian, so install it by hand"
    update_package_lists
    for package in docker-cli apparmor; do # Debian 13 packages the client separately; with AppArmor, the engine needs its parser
        case " $* " in *" docker.io "*) ;; *) continue ;; esac
        apt-cache show "$package" >/dev/null 2>&1 && set -- "$@" "$package"
    done
    say "installing $*"
    apt install -y --no-install-recommends "$@"
}

# Keeps services off when their packages are installed: a preset, which is gone after a reboot, makes systemd neither enable
# nor start them; without systemd, a runlevel without services has the same effect.
keep_services_off() {
    need_root "missing: $*"
    if [ -d /run/systemd/system ]; then
        mkdir -p /run/systemd/system-preset
        printf 'disable %s.service\n' "$@" >/run/systemd/system-preset/00-lab.preset
    else
        export RUNLEVEL=1
    fi
}

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

rust_is_new_enough() {
    version=$(cargo --version 2>/dev/null) || return 1
    version=${version#cargo }
    dpkg --compare-versions "${version%% *}" ge "$rust"
}

# Debian 12 and 13 both have a recent version as cargo-web; with it the tools are 6 % smaller than with Debian 13's cargo 1.85.
install_rust() {
    case $(command -v cargo) in
        '' | /usr/bin/*) ;;
        *) die "$(command -v cargo) is older than Rust $rust: run 'rustup update'" ;;
    esac
    need_root "missing: Rust $rust or newer"
    update_package_lists
    for package in cargo-web cargo; do
        candidate=$(apt-cache policy "$package" | awk '/Candidate:/ { print $2 }')
        case $candidate in [0-9]*) ;; *) continue ;; esac
        ! dpkg --compare-versions "$candidate" ge "$rust" || break
    done
    install_packages "$package"
    rust_is_new_enough || die "Debian's packages have no Rust $rust or newer: install it with rustup, then run this again"
}

start_engine() {
    need_root "the Docker engine does not answer"
    say "starting the Docker engine"
    if [ -d /run/systemd/system ]; then
        systemctl start docker >>"$log" 2>&1 || die "the Docker engine does not start: see 'journalctl -u docker'"
    elif ! { [ -x /etc/init.d/docker ] && service docker start >>"$log" 2>&1; }; then
        setsid dockerd >>"$log" 2>&1 </dev/null &
    fi
    tries=60
    until engine_answers; do
        tries=$((tries - 1))
        # Give up after a minute, or as soon as it has exited.
        if [ "$tries" = 0 ] || { [ "$tries" -lt 55 ] && ! grep -qsx dockerd /proc/[0-9]*/comm; }; then
            reason=$(grep -hs 'failed to start daemon' "$log" /var/log/docker.log | tail -n 1)
            die "the Docker engine does not start: ${reason:-see $log and /var/log/docker.log}"
        fi
        [ $((tries % 5)) != 0 ] || echo "    waiting for the engine to answer"
        sleep 1
    done
}

case ${1:-} in
    -h | --help) help ;;
    -*) die "unknown option '$1', see --help" ;;
esac

[ $# = 0 ] || keep_services_off "$@"
missing=$*
{ have docker && { have dockerd || engine_answers; }; } || missing="$missing docker.io"
have curl || missing="$missing curl ca-certificates" # cargo needs the certificates
have debootstrap || missing="$missing debootstrap"
[ -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ] || missing="$missing debian-archive-keyring"
case $(cc -print-file-name=libc.a 2>/dev/null) in /*) ;; *) missing="$missing gcc libc6-dev" ;; esac
# shellcheck disable=SC2086 # a list of packages
[ -z "$missing" ] || install_packages $missing
rust_is_new_enough || install_rust
engine_answers || start_engine
