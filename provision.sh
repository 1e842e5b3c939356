#!/bin/sh
# Installs what the lab needs and this Debian 12 or 13 machine lacks (the Docker engine, Rust 1.85 or newer, a C linker,
# debootstrap, curl), and starts the engine. Quick when nothing is missing. The other scripts call it by themselves.
#
# Usage: ./provision.sh    (as root)
set -eu

rust=1.85
log=/var/log/lab-provision.log
export DEBIAN_FRONTEND=noninteractive
PATH=${HOME:-/root}/.cargo/bin:$PATH # rustup's place, which a root shell often does not look into

say() { echo "==> $*"; }
die() {
    echo "provision.sh: $*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command, or ends with its last words.
logged() {
    "$@" >>"$log" 2>&1 </dev/null || die "'$*' failed: $(tail -n 1 "$log") (all of it: $log)"
}

need_root() { [ "$(id -u)" = 0 ] || die "$1: run this as root"; }

update_package_lists() {
    [ -n "${updated:-}" ] || logged apt-get update
    updated=yes
}

install_packages() {
    need_root "missing: $*"
    have apt-get || die "missing: $*: install it by hand, as this is no Debian"
    update_package_lists
    for package in docker-cli apparmor; do # Debian 13: the client is a package of its own; AppArmor: the engine needs its parser
        case " $* " in *" docker.io "*) ;; *) continue ;; esac
        apt-cache show "$package" >/dev/null 2>&1 && set -- "$@" "$package"
    done
    say "installing $*"
    logged apt-get install -y --no-install-recommends "$@"
}

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

rust_is_new_enough() {
    version=$(cargo --version 2>/dev/null) || return 1
    version=${version#cargo }
    dpkg --compare-versions "${version%% *}" ge "$rust"
}

# The new one of Debian 12 has a name of its own; Debian 13 has it as cargo.
install_rust_of_debian() {
    for package in cargo cargo-web; do
        candidate=$(apt-cache policy "$package" | awk '/Candidate:/ { print $2 }')
        case $candidate in [0-9]*) ;; *) continue ;; esac
        if dpkg --compare-versions "$candidate" ge "$rust"; then
            install_packages "$package"
            return
        fi
    done
}

install_rust() {
    need_root "missing: Rust $rust or newer"
    installer=$(mktemp)
    if curl -fsSL --connect-timeout 5 --max-time 60 -o "$installer" https://sh.rustup.rs 2>>"$log"; then
        say "installing Rust by rustup"
        RUSTUP_INIT_SKIP_PATH_CHECK=yes logged sh "$installer" -y --no-modify-path --profile minimal
    else
        say "rustup cannot be reached; looking for Debian's Rust"
        update_package_lists
        install_rust_of_debian
    fi
    rm -f "$installer"
    rust_is_new_enough || die "cargo $rust or newer is needed and neither rustup nor Debian's packages gave one: install it, then run this again"
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
        # Given up after a minute, or as soon as it has run and ended.
        if [ "$tries" = 0 ] || { [ "$tries" -lt 55 ] && ! grep -qsx dockerd /proc/[0-9]*/comm; }; then
            reason=$(grep -hs 'failed to start daemon' "$log" /var/log/docker.log | tail -n 1)
            die "the Docker engine does not start: ${reason:-see $log and /var/log/docker.log}"
        fi
        sleep 1
    done
}

case ${1:-} in
    '') ;;
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    *) die "unknown argument '$1', see --help" ;;
esac
[ -w /var/log ] || log=/dev/null

missing=
{ have docker && { have dockerd || engine_answers; }; } || missing=docker.io
have debootstrap || missing="$missing debootstrap"
[ -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ] || missing="$missing debian-archive-keyring"
have curl || missing="$missing curl ca-certificates"
case $(cc -print-file-name=libc.a 2>/dev/null) in /*) ;; *) missing="$missing gcc libc6-dev" ;; esac
# shellcheck disable=SC2086 # a list of packages
[ -z "$missing" ] || install_packages $missing
rust_is_new_enough || install_rust
engine_answers || start_engine
