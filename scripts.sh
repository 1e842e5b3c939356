# shellcheck shell=sh
# Functions shared by the scripts in this directory, which source it with `. ./scripts.sh`.
set -eu

# Not every root shell has rustup's directory in its path, and after a plain `su` the sbin directories are missing.
PATH=${HOME:-/root}/.cargo/bin:$PATH:/usr/sbin:/sbin
export PATH

# How rustc makes the tools: static, and small. Not every linker that rustc may choose keeps what the linker script has to keep.
# shellcheck disable=SC2034 # for build-images.sh and build-deb.sh
static='-C target-feature=+crt-static -C relocation-model=static -C link-arg=-Wl,--no-eh-frame-hdr -C link-arg=-fuse-ld=bfd -C link-arg=-Wl,-T,crates/no-unwind-tables.ld'

say() { echo "==> $*"; }
die() {
    echo "${0##*/}: $*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Prints the comment at the top of the script.
help() {
    sed -n '2,/^[^#]/{/^[^#]/d;s/^# \{0,1\}//;p}' "${0##*/}"
    exit 0
}

# Prints where this machine gets its Debian packages from. $1: Debian or Debian-Security.
debian_mirror() {
    # shellcheck disable=SC2016 # a variable of apt
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Label: $1" | head -n 1)
    case $uri in # a file with a list of mirrors
        mirror+file:*) uri=$(grep -m 1 -o '^[a-z]*://[^[:space:]]*' "${uri#mirror+file:}") ;;
    esac
    echo "$uri"
}

# logged LOG COMMAND...: runs a command and appends its output to a file. Prints the last line of the output every 5 s, and
# ends the script with the cause if the command fails.
logged() {
    attempt "$@" || {
        shift
        die "'$*' failed: $(cause) (full log: $log)"
    }
}

# The same, but lets the caller handle a failure.
attempt() {
    log=$1
    shift
    begin=$(stat -c %s "$log" 2>/dev/null || echo 0)
    show_progress &
    progress=$!
    code=0
    "$@" >>"$log" 2>&1 </dev/null || code=$?
    kill "$progress" 2>/dev/null || true
    wait "$progress" 2>/dev/null || true
    return "$code"
}

# The output of the running command so far.
output() { tail -c "+$((begin + 1))" "$log" 2>/dev/null | tr -d '\0'; }

# The first error is more useful than the last line. If writing the log failed, there is none.
cause() {
    output | grep -m 1 -ioE '[^:]*: *no space left on device|.*not enough free space.*' ||
        output | grep -m 1 -E '^(E: |error|dpkg: error|ERROR)' ||
        output | grep . | tail -n 1 | grep . ||
        df -h "$log" | awk 'END { print "exit code '"$code"', with " $4 " left on " $6 }'
}

# Runs alongside a command and ends with the script at the latest.
show_progress() {
    seconds=0
    while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        seconds=$((seconds + 1))
        [ $((seconds % 5)) != 0 ] || echo "    $seconds s: $(output | grep . | tail -n 1 | cut -c 1-100)"
    done
}
