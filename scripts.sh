# shellcheck shell=sh
# What the scripts of this folder share. They read it by `. ./scripts.sh`.
set -eu

# Rustup's folder is not in every root shell's path, nor are the folders of root's programs after `su` without a dash.
PATH=${HOME:-/root}/.cargo/bin:$PATH:/usr/sbin:/sbin
export PATH

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

# Where this machine gets its Debian packages from: $1 is Debian or Debian-Security.
debian_mirror() {
    # shellcheck disable=SC2016 # apt's own variable
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Label: $1" | head -n 1)
    case $uri in # a list of mirrors in a file
        mirror+file:*) uri=$(grep -m 1 -o '^[a-z]*://[^[:space:]]*' "${uri#mirror+file:}") ;;
    esac
    echo "$uri"
}

# logged LOG COMMAND...: runs a command and appends its output to a file. Prints every 5 s the last line of it, and ends
# the script with the cause if the command fails.
logged() {
    attempt "$@" || {
        shift
        die "'$*' failed: $(cause) (all of it: $log)"
    }
}

# The same, but a command that fails is the caller's business.
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

# What the running command has printed.
output() { tail -c "+$((begin + 1))" "$log" 2>/dev/null | tr -d '\0'; }

# The first error tells more than the last line; an error while writing the log itself leaves none.
cause() {
    output | grep -m 1 -ioE '[^:]*: *no space left on device|.*not enough free space.*' ||
        output | grep -m 1 -E '^(E: |error|dpkg: error|ERROR)' ||
        output | grep . | tail -n 1 | grep . ||
        df -h "$log" | awk 'END { print "exit code '"$code"', with " $4 " left on " $6 }'
}

# Runs beside a command, no longer than the script. A signal to the terminal's processes does not reach it.
show_progress() {
    seconds=0
    while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        seconds=$((seconds + 1))
        [ $((seconds % 5)) != 0 ] || echo "    $seconds s: $(output | grep . | tail -n 1 | cut -c 1-100)"
    done
}
