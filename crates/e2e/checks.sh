# shellcheck shell=sh
# What the scripts in this directory share: they count what holds and what does not, as test.sh reads it. Sourced after scripts.sh.

# shellcheck disable=SC2034 # for those that source this
passed=0 failed=0 skipped=0
about= # begins every line
work=  # directory for what is measured; each script sets its own

pass() {
    passed=$((passed + 1))
    echo "ok: $about$*"
}
fail() {
    failed=$((failed + 1))
    echo "FAILED: $about$*"
}
skip() {
    skipped=$((skipped + 1))
    echo "skipped: $about$*"
}

# check CLAIM COMMAND...: the claim holds if the command succeeds; otherwise its output says why.
check() {
    claim=$1
    shift
    if output=$("$@" 2>&1); then
        pass "$claim"
    else
        fail "$claim${output:+:}"
        [ -z "$output" ] || echo "$output" | sed 's/^/    /'
    fi
}

# within SECONDS COMMAND...: repeats a command until it succeeds; prints its last output if it does not.
within() {
    end=$(($(date +%s) + $1))
    shift
    until said=$("$@" 2>&1); do
        [ "$(date +%s)" -lt "$end" ] || {
            echo "$said"
            return 1
        }
        sleep 0.2
    done
}

# Prints the counts. Fails if something has.
print_counts() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}

# start_load URL NAME...: one client for each name, one request after the other, for at most 10 minutes. In the URL, NAME is
# replaced. Clients keep their connections as long as they may.
start_load() {
    rm -f "${work:?}"/load.*
    loads=
    url=$1
    shift
    for name in "$@"; do
        # To its standard error, which is not buffered.
        timeout 600 curl -s --max-time 30 -o /dev/null -w '%{stderr}%{http_code} %{time_total} %{errormsg}\n' \
            "$(echo "$url" | sed "s/NAME/$name/")/?[1-2000000]" 2>"$work/load.$name" &
        loads="$loads $!"
    done
}

stop_load() {
    # shellcheck disable=SC2086 # a list of processes
    kill ${loads:-} 2>/dev/null || true
    for load in ${loads:-}; do wait "$load" 2>/dev/null || true; done
    loads=
}

# Prints for each client how many of its requests were lost, why, and the slowest answer.
count_lost() {
    stop_load
    for file in "$work"/load.*; do
        # The last one may have been cut off by us.
        sed -i '$d' "$file"
        awk -v name="${file##*/load.}" '
            $1 != 200 { lost++; code = $1; $1 = $2 = ""; why = code $0 }
            $1 == 200 && $2 > slowest { slowest = $2 }
            END { printf "%s: %d of %d lost, slowest %.1f s%s\n", name, lost, NR, slowest, why ? ", the last one by: " why : "" }' "$file"
    done | tee "$work/lost"
}

# Fails unless each client goes on having answers, and has had only good ones.
none_lost() {
    go_on || {
        count_lost
        return 1
    }
    count_lost
    awk '$2 > 0 { bad = 1 } END { exit bad }' "$work/lost"
}
go_on() {
    for file in "$work"/load.*; do within 40 has_lines "$file" $(($(wc -l <"$file") + 100)) || return 1; done
}
has_lines() { [ "$(wc -l <"$1")" -ge "$2" ]; }
