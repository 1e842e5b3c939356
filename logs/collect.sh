#!/bin/sh
# Makes the evidence of the lab's tasks from a live run of a minute or two: logs/task0 to logs/task6, with the stats
# page as pictures by Chromium. Installs what it lacks, leaves a running lab alone, and removes what it started.
#
# Usage: logs/collect.sh [DIR]    (as root) into DIR instead of logs/
#
# NETWORK, PREFIX   the network to make for it, and what is put before the containers' names: logs, logs-
#
# What Docker and the programs print is kept as they print it, but for what changes from run to run: times, process ids,
# Docker's identifiers, states of health and MAC addresses are replaced by TIME, PID, ID, HEALTH and MAC; addresses are told as
# on Docker's first network, the host's ports, which Docker chooses, as the lab's own; and names as in the lab, heig, ha,
# s1 …
set -eu

network=${NETWORK:-logs}
prefix=${PREFIX:-logs-}

say() { echo "==> $*"; }
die() {
    echo "collect.sh: $*" >&2
    exit 1
}

install_missing() {
    missing=
    for program in chromium jq pngquant; do
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    # Without a font Chromium draws no text.
    [ -n "$(find /usr/share/fonts -name '*.ttf' 2>/dev/null | head -n 1)" ] || missing="$missing fonts-liberation"
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || die "missing:$missing: run this as root"
    say "installing$missing"
    apt-get update >"$work/apt.log" 2>&1 || die "apt-get update: $(tail -n 1 "$work/apt.log")"
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >"$work/apt.log" 2>&1 ||
        die "apt-get install$missing: $(tail -n 1 "$work/apt.log")"
}

clean_up() {
    if [ -n "${network_made:-}" ]; then
        # shellcheck disable=SC2046 # a list of identifiers
        set -- $(docker ps --all --quiet --filter "network=$network")
        [ $# = 0 ] || docker rm --force --volumes "$@" >/dev/null
        docker network rm "$network" >/dev/null
    fi
    rm -rf "$work"
}

# run NAME IMAGE [DOCKER OPTION...]: the lab's own line. The hostname is the node's name in the cluster: without it,
# another one each time.
run() {
    name=$1
    image=$2
    shift 2
    say "starting $prefix$name"
    docker run --detach --network "$network" --network-alias "$name" --hostname "$name" --name "$prefix$name" "$@" \
        "softengheigvd/$image" >/dev/null || die "$prefix$name does not start"
}

address_of() { docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$prefix$1"; }

# wait_for SECONDS WHAT COMMAND...
wait_for() {
    deadline=$(($(date +%s) + $1))
    what=$2
    shift 2
    until "$@"; do
        [ "$(date +%s)" -lt "$deadline" ] || die "not seen in time: $what; the last lines of $prefix""ha:
$(docker logs --tail 5 "${prefix}ha" 2>&1)"
        sleep 0.1
    done
}

in_ha() { docker exec "${prefix}ha" "$@"; }

# Saves the stats page. True if it shows just these nodes, as NAME=CLASS, the class being that of the row's colour.
page_shows() {
    curl -fs --max-time 2 -o "$work/page.html" "http://$ha:1936/" || return 1
    [ "$(sed -n 's/.*<tr class="\([^"]*\)"><td class=ac><a name="nodes\/\([^"]*\)">.*/\2=\1/p' "$work/page.html" | sort | xargs)" = "$*" ]
}

# Draws the page that was saved last into file $1. The page of a node that dies is not there for long.
draw() {
    timeout 60 chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/chromium" \
        --window-size=1250,570 --screenshot="$work/page.png" "file://$work/page.html" >"$work/chromium.log" 2>&1 ||
        die "Chromium fails: $(tail -n 1 "$work/chromium.log")"
    pngquant --force --output "$out/$1" --nofs 256 "$work/page.png" || die "pngquant fails"
}

# picture FILE NAME=CLASS...
picture() {
    file=$1
    shift
    wait_for 30 "a page with $*" page_shows "$@"
    draw "$file"
}

# moment NUMBER NAME=CLASS...: the picture and the containers of task 6.
moment() {
    number=$1
    shift
    wait_for 30 "a page with $*" page_shows "$@"
    docker_ps >"$out/task6/${number}_ps.log"
    draw "task6/${number}_stats.png"
}

# What changes from run to run is made the same.
stable() {
    sed -E -e "s/\<${subnet}\./172.18.0./g" -e 's,[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[ T][0-9:]{8}(\.[0-9]+)?Z?,TIME,' \
        -e 's/^(\[[A-Z]+\] +)\([0-9]+\)/\1(PID)/' -e 's/(New worker) \([0-9]+\)/\1 (PID)/' -e 's/_ms=[0-9.]+/_ms=TIME/g' \
        -e "s/\<$prefix//g"
}

logs_of() { docker logs "$prefix$1" 2>&1 | stable; }

# The columns of `docker ps`, which is as wide as what stands in it: the youngest container first.
docker_ps() {
    docker ps --all --filter "network=$network" \
        --format '{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}' |
        sed -E -e 's/^[0-9a-f]+/ID/' -e 's/\t[^\t]* ago\t/\tTIME ago\t/' -e 's/\tUp [^\t(]*[^\t( ]/\tUp TIME/' \
            -e 's/ [^\t)]* ago\t/ TIME ago\t/' -e 's/\((health: starting|healthy|unhealthy)\)/(HEALTH)/' \
            -e 's/:[0-9]+->([0-9]+)/:\1->\1/g' | stable |
        awk -F '\t' '
            BEGIN { line[0] = "CONTAINER ID\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tPORTS\tNAMES" }
            { line[NR] = $0 }
            END {
                for (i = 0; i <= NR; i++) {
                    columns = split(line[i], cell)
                    for (c = 1; c <= columns; c++) if (length(cell[c]) > width[c]) width[c] = length(cell[c])
                }
                for (i = 0; i <= NR; i++) {
                    split(line[i], cell)
                    for (c = 1; c < columns; c++) printf "%-" width[c] + 3 "s", cell[c]
                    print cell[columns]
                }
            }'
}

# inspected JQ_FILTER: what Docker tells of something, from standard input.
inspected() {
    jq --indent 4 "$1" | sed "s/\"$network\"/\"heig\"/" | stable | sed -E \
        -e 's/[0-9a-f]{64}/ID/g' -e 's/"[0-9a-f]{12}"/"ID"/' -e 's,netns/[0-9a-f]{12},netns/ID,' \
        -e 's/"([0-9a-f]{2}:){5}[0-9a-f]{2}"/"MAC"/' -e 's/"IPPrefixLen": [1-9][0-9]*/"IPPrefixLen": 16/' \
        -e 's,"(172\.18\.0\.[0-9]+)/[0-9]+","\1/16",'
}

inspect_all() {
    for name in ha s1 s2; do
        # shellcheck disable=SC2016 # jq's own variable
        docker inspect "$prefix$name" | inspected '.[0] |= (
            .State.Pid = "PID" | .State.Health = "HEALTH" |
            (.HostConfig.PortBindings, .NetworkSettings.Ports) |= with_entries(
                (.key | split("/")[0]) as $port | .value |= (if . then map(.HostPort = $port) else . end)))' >"$1/inspect_$name.log"
    done
    docker network inspect "$network" | inspected '.[0].Containers |= (to_entries | sort_by(.value.Name) | from_entries)' \
        >"$1/inspect_network.log"
}

# The processes of ha but those that the service join runs for a moment. What PID 1 is called depends on the supervisor.
processes() {
    docker top "${prefix}ha" -o pid,args | awk -v first="$(docker inspect --format '{{.State.Pid}}' "${prefix}ha")" '
        NR == 1 { next }
        { program = $2; sub(/.*\//, "", program); pid = $1; sub(/^ *[0-9]+ +/, "") }
        pid == first { print "1   " $0 }
        pid != first && (program ~ /^(s6-|haproxy|sync-nodes|bundle-log)/ || $0 ~ /^[a-z/]*serf agent/) { print "PID " $0 }' | sort
}

# What tasks 3, 4 and 5 show after each step: $1 is its number. One template with all nodes, not one node each time.
step() {
    logs_of ha >"$out/task3/ha_$1.log"
    docker exec -i "${prefix}ha" sh -c 'cat >/tmp/nodes.hb' <<'TEMPLATE'
Nodes of the cluster:
{{#each addresses}}
Node {{host}} has the address {{ip}}
{{/each}}
TEMPLATE
    in_ha render-cfg --template /tmp/nodes.hb --stdout | stable >"$out/task4/haproxy_$1.log"
    in_ha cat /usr/local/etc/haproxy/haproxy.cfg | stable >"$out/task5/haproxy_$1.cfg"
}

# Serf calls the handler a second after the member is there.
handled() { in_ha grep -qs "$1: $2 .*$3" /var/log/serf.log; }

serve() {
    run ha ha -p 127.0.0.1::80 -p 127.0.0.1::1936 -p 127.0.0.1::9999
    ha=$(address_of ha)
    subnet=${ha%.*}
    wait_for 30 "the page" page_shows
    wait_for 30 "the event for ha" handled member-join "'ha'" balancer
    step 1

    run s1 webapp
    moment 6.1 s1=active_up
    wait_for 30 "the event for s1" handled member-join s1 joined
    logs_of s1 >"$out/task3/s1.log"
    step 2

    run s2 webapp
    picture task0/stats.png s1=active_up s2=active_up
    wait_for 30 "the event for s2" handled member-join s2 joined
    step 3
    for name in ha s1 s2; do
        logs_of "$name" >"$out/task2/$name.log"
    done
    cp "$out/task2/s2.log" "$out/task3/s2.log"
    in_ha cat /var/log/serf.log | stable >"$out/task3/serf.log"
    for task in task4 task5; do
        docker_ps >"$out/$task/docker_ps.log"
        inspect_all "$out/$task"
    done
    in_ha ls /nodes >"$out/task5/ls_nodes.log"
    moment 6.2 s1=active_up s2=active_up

    say "killing HAProxy: the supervisor starts it anew"
    processes >"$out/task1/processes.log"
    old=$(in_ha s6-svstat -o pid /var/run/s6/services/ha)
    in_ha s6-svc -k /var/run/s6/services/ha
    wait_for 20 "another HAProxy" another_haproxy "$old"
    picture task1/stats.png s1=active_up s2=active_up

    say "stopping ${prefix}s1"
    docker stop "${prefix}s1" >/dev/null
    wait_for 30 "a page with s2 alone" page_shows s2=active_up
    in_ha cat /usr/local/etc/haproxy/haproxy.cfg | stable >"$out/task5/haproxy_4.cfg"
    in_ha ls /nodes >"$out/task5/ls_nodes2.log"
    docker_ps >"$out/task5/docker_ps2.log"
    docker start "${prefix}s1" >/dev/null

    run s3 webapp
    moment 6.3 s1=active_up s2=active_up s3=active_up

    say "stopping ${prefix}s1 while it works on a request"
    begin_session s1
    ask 'slow?seconds=7' &
    request=$!
    wait_for 10 "the request" request_runs_on s1
    docker stop "${prefix}s1" >/dev/null &
    moment 6.4 s1=maintain s2=active_up s3=active_up
    wait "$request"
    wait
    moment 6.5 s2=active_up s3=active_up

    docker start "${prefix}s1" >/dev/null
    run s4 webapp
    run s5 webapp
    moment 6.6 s1=active_up s2=active_up s3=active_up s4=active_up s5=active_up

    begin_session s2
    say "killing ${prefix}s2"
    docker kill "${prefix}s2" >/dev/null
    # HAProxy takes it out at the second request that fails, and answers both from another node.
    ask '' &
    first=$!
    ask '' &
    second=$!
    moment 6.7 s1=active_up s2=active_down s3=active_up s4=active_up s5=active_up
    wait "$first"
    wait "$second"
    wait_for 30 "a page without s2" page_shows s1=active_up s3=active_up s4=active_up s5=active_up
}

another_haproxy() { [ "$(in_ha s6-svstat -o pid /var/run/s6/services/ha)" != "$1" ]; }

# begin_session NODE: gets a cookie of the node.
begin_session() { wait_for 10 "a session of $1" is_answered_by "$1"; }

is_answered_by() { curl -fs --max-time 20 --cookie-jar "$work/session" "http://$ha/" | grep -q "\"host\":\"$1\""; }

# ask PATH: a request in the session.
ask() { curl -fs --max-time 20 -o /dev/null --cookie "$work/session" "http://$ha/$1" || die "/$1 is not answered"; }

request_runs_on() {
    curl -fs --max-time 2 "http://$ha:1936/;csv" | awk -F , -v node="$1" '$1 == "nodes" && $2 == node && $5 > 0 { found = 1 } END { exit !found }'
}

case ${1:-} in
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    -*) die "unknown option '$1', see --help" ;;
esac
[ $# -le 1 ] || die "too many arguments, see --help"
top=$(dirname "$(dirname "$(realpath "$0")")")
target=$(realpath -m "${1:-$top/logs}")
mkdir -p "$target" || exit 1
work=$(mktemp -d)
trap 'exit 130' INT
trap 'exit 143' TERM
trap clean_up EXIT
"$top/build-images.sh"
install_missing
docker network create "$network" >/dev/null 2>"$work/network" ||
    die "$(tail -n 1 "$work/network"): another run of this uses it, or one that was killed: see 'docker ps --filter network=$network', or choose a NETWORK and a PREFIX"
network_made=yes

out=$work/out
for task in 0 1 2 3 4 5 6; do
    mkdir -p "$out/task$task"
done
serve
for task in 0 1 2 3 4 5 6; do
    rm -rf "$target/task$task"
    cp -R "$out/task$task" "$target/"
done
say "made in $target:"
(cd "$out" && find . -type f -printf '%P %s\n' | sort | awk '{ printf "    %-26s %6d bytes\n", $1, $2; sum += $2 } END { printf "    %d files, %d bytes\n", NR, sum }')
