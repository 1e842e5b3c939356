#!/bin/sh
# Starts the lab: the balancer ha and the nodes s1, s2 ... on the network heig.
# First installs, compiles and builds what is missing. In a running lab, it
# changes the number of nodes without losing a request: containers that already
# match are kept, and nodes beyond N are stopped, including those added by hand.
# If ha does not match, everything is removed and started again.
#
# Usage: ./start-containers.sh [--no-key] [--tls] [N]
#            start N nodes, 1 to 50; default 2
#        ./start-containers.sh down
#            stop and remove the containers and the network of the lab
#
# For more than 20 nodes, raises the kernel's limit of neighbour entries if it is
# too low (net.ipv4.neigh.default.gc_thresh1 to 3).
#
# --no-key    build images without the key that encrypts the gossip
# --tls       make a self-signed certificate in certs/ if there is none, to try
#             HTTPS; with certificates there, port 443 is published too
#
# HTTP_PORT, HTTPS_PORT,                ports to publish, instead of 80, 443, 1936
# STATS_PORT, SOCKET_PORT               and 9999; 0 lets Docker choose
# CERTS                                 directory of the certificates, instead of
#                                       certs
# BIND                                  address to publish them on, instead of
#                                       all: BIND=127.0.0.1
# ACME_EMAIL, ACME_DOMAINS              get certificates for these hosts, as
# ACME_DIRECTORY                        docs/https.md says; needs port 80
# STATS_AUTH_FILE                       who may see the statistics and the live
#                                       page: docs/live.md; without it, everybody
# NETWORK, PREFIX                       network to use instead of heig, and prefix
#                                       for container names, for a second lab
set -eu
cd "$(dirname "$0")"
. ./scripts.sh

network=${NETWORK:-heig}
prefix=${PREFIX:-}
ha=${prefix}ha
image_label=softengheigvd.image # on every image of the lab, and so on every container
how_label=softengheigvd.start   # how a container was started
container_options=$(cat container-options) # for every container
case $(docker --version 2>/dev/null) in
    podman*) # uses another option for the user of a tmpfs, and lets only root listen on port 80
        container_options="$(sed s/uid=10001,gid=10001/U/ container-options) --sysctl=net.ipv4.ip_unprivileged_port_start=0"
        ;;
esac

# Lists the lab's containers on its network, including stopped ones. $@: what to print.
lab_containers() { docker ps --all --filter "label=$image_label" --filter "network=$network" "$@"; }

remove_containers() {
    # shellcheck disable=SC2046 # a list of identifiers
    set -- $(lab_containers --quiet)
    [ $# = 0 ] || docker rm --force --volumes "$@" >/dev/null
}

network_exists() { docker network inspect "$network" >/dev/null 2>&1; }

down() {
    docker version >/dev/null 2>&1 || die "the Docker engine does not answer, or does not allow this user: run this as root"
    remove_containers
    ! network_exists || docker network rm "$network" >/dev/null 2>&1 ||
        die "the network $network is used by other containers: 'docker network inspect $network' lists them"
    say "removed the lab on the network $network"
}

# True if something listens on port $1 of the address to publish on. $2: addresses to ignore.
is_listened_on() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$(printf '%04X' "$1")" -v without="$2" -v bind="${BIND:-0.0.0.0}" '
        function hex(address, part) {
            split(address, part, ".")
            return sprintf("%02X%02X%02X%02X", part[4], part[3], part[2], part[1])
        }
        BEGIN {
            for (i = split(without, list, " "); i > 0; i--) left_out[hex(list[i])] = 1
            everywhere = bind == "0.0.0.0" || bind ~ /:/
        }
        $4 == "0A" && split($2, at, ":") && at[2] == port {
            address = substr(at[1], length(at[1]) - 7)
            if (!(address in left_out) && (everywhere || address == "00000000" || address == hex(bind))) found = 1
        }
        END { exit !found }'
}

# check_port NAME VALUE: fails if it is not a port, or is taken by anything but a container that will be replaced.
check_port() {
    case $2 in
        '' | *[!0-9]* | ??????*) port=99999 ;;
        *) port=$2 ;;
    esac
    [ "$port" -le 65535 ] || die "$1: '$2': must be a port number"
    [ "$port" != 0 ] || return 0
    case " $checked " in *" $port "*) die "$1: port $port is published twice: choose another one" ;; esac
    checked="$checked $port"
    own=$(lab_containers --format '{{.Ports}}' | grep -oE "[0-9.]+:$port->" | cut -d : -f 1 | tr '\n' ' ')
    ! is_listened_on "$port" "$own" || {
        holder=$(docker ps --format '{{.Names}} {{.Ports}}' | grep -m 1 ":$port->" | cut -d ' ' -f 1)
        die "port $port is taken by ${holder:-another program}: stop it, or choose another port by $1=..."
    }
}

# Fails if the containers' user cannot read the template, as in a clone made under a strict umask.
check_config() {
    unreadable=$(find ha/config \( -type d ! -perm -005 -o -type f ! -perm -004 \) | head -n 1)
    [ -z "$unreadable" ] || die "the containers' user cannot read $unreadable: chmod -R o+rX ha/config"
}

uses_acme() { [ -n "${ACME_EMAIL:-}" ]; }

# Makes the directory of the certificates one that the images' user can write to, which takes root.
prepare_acme() {
    mkdir -p "$certs"
    [ "$(stat -c %u "$certs")" = 10001 ] ||
        docker run --rm --network none --user 0 --entrypoint chown --volume "$certs:/certs" softengheigvd/ha 10001 /certs ||
        die "the images' user cannot be made the owner of $certs: chown 10001 $certs"
}

has_certificates() { ls "$certs"/*.pem >/dev/null 2>&1; }

# Makes a self-signed certificate for trying. The images' user has to own the key, which takes root.
make_certificate() {
    ! has_certificates || return 0
    have openssl || die "openssl is not installed: apt-get install openssl"
    say "making a self-signed certificate in $certs"
    mkdir -p "$certs"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=localhost" \
        -addext "subjectAltName=DNS:localhost,DNS:$ha,IP:127.0.0.1" -keyout "$certs/localhost.key" -out "$certs/localhost.crt" 2>/dev/null ||
        die "openssl cannot make a certificate in $certs"
    (umask 077 && cat "$certs/localhost.crt" "$certs/localhost.key" >"$certs/localhost.pem" && rm "$certs/localhost.key")
    docker run --rm --network none --user 0 --entrypoint chown --volume "$certs:/certs" softengheigvd/ha 10001 /certs/localhost.pem ||
        die "the images' user cannot be made the owner of $certs/localhost.pem: chown 10001 $certs/localhost.pem"
}

# check_name NAME: fails if a container that will not be replaced has this name.
check_name() {
    id=$(docker ps --all --quiet --filter "name=^/$1\$")
    [ -z "$id" ] || lab_containers --quiet | grep -q "$id" ||
        die "the container $1 is not part of this lab, or is on another network: 'docker rm -f $1', or choose a PREFIX"
}

# Fails if another lab's balancer is on the network: the members of both labs would form one cluster.
check_network() {
    other=$(lab_containers --filter "label=$image_label=ha" --filter "label=$how_label" --format '{{.Names}}' | grep -vxF "$ha" | head -n 1)
    [ -z "$other" ] ||
        die "the lab of $other is on the network $network: choose another NETWORK too, or remove that lab with 'down' first"
}

# Raises the kernel's limit of neighbour (ARP) entries if it is too low for this many nodes: each container has an entry for
# each other one, and those of all containers are counted together. Beyond the limit, packets are lost.
allow_neighbours() {
    table=/proc/sys/net/ipv4/neigh/default
    needed=$((2 * (nodes + 2) * (nodes + 2))) # as many again for whatever else is on this machine
    limit=$(cat "$table/gc_thresh3" 2>/dev/null) || limit=1024 # the kernel's default: it cannot be seen from inside a container
    [ "$limit" -lt "$needed" ] || return 0
    # In the proportions of the defaults. Above the second one, entries are removed after 5 s without use.
    low=$((needed / 8))
    high=$((needed / 2))
    if { echo "$needed" >"$table/gc_thresh3" && echo "$high" >"$table/gc_thresh2" && echo "$low" >"$table/gc_thresh1"; } 2>/dev/null; then
        say "raised the kernel's limit of neighbour entries from $limit to $needed for $nodes nodes, until the next boot"
    else
        name=net.ipv4.neigh.default.gc_thresh
        echo "${0##*/}: the kernel's limit of neighbour entries, $limit, is too low for $nodes nodes; as root, on the machine itself:" \
            "sysctl -w ${name}1=$low ${name}2=$high ${name}3=$needed" >&2
    fi
}

# how IMAGE [DOCKER OPTION...]: everything that determines how a container is started, except its name
how() {
    image=$1
    shift
    echo "$(docker image inspect --format '{{.Id}}' "softengheigvd/$image") $*"
}

# is_kept NAME IMAGE [DOCKER OPTION...]: true if the container runs on this network, just as it would be started now.
is_kept() {
    name=$1
    shift
    [ "$(docker container inspect --format "{{.State.Running}} {{index .Config.Labels \"$how_label\"}}" "$name" 2>/dev/null)" = "true $(how "$@")" ] &&
        lab_containers --format '{{.Names}}' | grep -qxF "$name"
}

# why_replaced NAME IMAGE: prints why a container is not kept.
why_replaced() {
    state=$(docker container inspect --format "{{.State.Running}} {{index .Config.Labels \"$how_label\"}}" "$1" 2>/dev/null) || state=none
    case $state in
        none) echo "there is no $1" ;;
        'true ') echo "$1 was started by hand" ;;
        false*) echo "$1 does not run" ;;
        "true $(docker image inspect --format '{{.Id}}' "softengheigvd/$2") "*) echo "$1 was started with other options" ;;
        *) echo "$1 has an older image" ;;
    esac
}

# Stops containers, which finish their requests, and removes them. One started with --rm is gone once it has stopped.
stop_containers() {
    docker stop "$@" >/dev/null || die "$*: not stopped"
    docker rm --force --volumes "$@" >/dev/null 2>&1 || true
}

# run NAME IMAGE [DOCKER OPTION...]
run() {
    name=$1
    how=$(shift && how "$@")
    image=$2
    shift 2
    say "starting $name"
    # In its own session: on Ctrl-C halfway through, Docker could create the container after the cleanup.
    # shellcheck disable=SC2086 # a list of options
    error=$(setsid --wait docker run --detach --name "$name" --hostname "$name" --label "$how_label=$how" --network "$network" \
        --restart unless-stopped $container_options "$@" "softengheigvd/$image" 2>&1 >/dev/null) || die "$name does not start: $(echo "$error" | head -n 1)"
}

publish() { echo "${BIND:+$BIND:}$1:$2"; }

# Sends requests to the balancer from inside the first node until each node has answered.
wait_for_nodes() {
    docker exec -i --env NODE_TLS_REJECT_UNAUTHORIZED=0 "${prefix}s1" node --no-warnings - "$ha" "$nodes" <<'SCRIPT'
const [balancer, wanted] = [process.argv[2], Number(process.argv[3])];
let url = `http://${balancer}/`;
const deadline = Date.now() + 60_000;
const hosts = new Set();
setInterval(() => console.log(`    ${hosts.size} of ${wanted} answer`), 5_000).unref();
(async () => {
  while (hosts.size < wanted && Date.now() < deadline) {
    try {
      const response = await fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(2_000) });
      if (response.status === 307) url = `https://${balancer}/`;
      const body = await response.json();
      if (!response.ok) throw response;
      hosts.add(body.host);
    } catch {} // not ready yet
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  process.exit(hosts.size < wanted ? 1 : 0);
})();
SCRIPT
}

# Prints the address of the balancer's port $1 for a browser.
where() {
    docker port "$ha" "$1" | head -n 1 | sed 's/^0\.0\.0\.0:/localhost:/'
}

# Prints one more line about how to reach the balancer by HTTPS, if it is published.
where_https() {
    at=$(where 443 2>/dev/null)
    trusted=
    [ ! -e "$certs/localhost.crt" ] || trusted="--cacert $certs/localhost.crt "
    [ -z "$at" ] || printf '\n      curl %shttps://%s/' "$trusted" "$at"
}

# Stops the containers of the lab that are not in $wanted.
stop_others() {
    set --
    for name in $(lab_containers --format '{{.Names}}'); do
        case $wanted in *" $name "*) ;; *) set -- "$@" "$name" ;; esac
    done
    [ $# = 0 ] || {
        say "stopping $*"
        stop_containers "$@"
    }
}

start() {
    ! uses_acme || [ -n "${ACME_DOMAINS:-}" ] || die "ACME_EMAIL needs ACME_DOMAINS too: the hosts to get certificates for"
    [ -z "${STATS_AUTH_FILE:-}" ] || [ -f "$STATS_AUTH_FILE" ] || die "STATS_AUTH_FILE: there is no file $STATS_AUTH_FILE"
    check_config
    ./provision.sh
    check_network
    checked=
    check_port HTTP_PORT "$http_port"
    if [ -n "$tls" ] || has_certificates || uses_acme; then check_port HTTPS_PORT "$https_port"; fi
    check_port STATS_PORT "$stats_port"
    check_port SOCKET_PORT "$socket_port"
    number=0
    check_name "$ha"
    while [ "$number" -lt "$nodes" ]; do
        number=$((number + 1))
        check_name "$prefix"s$number
    done
    # shellcheck disable=SC2086 # nothing, or one option
    ./build-images.sh $no_key
    [ -z "$tls" ] || make_certificate
    ! uses_acme || prepare_acme

    allow_neighbours

    # Mounts the template, so that it can be edited while the lab is running.
    set -- ha --volume "$PWD/ha/config:/config:ro" \
        -p "$(publish "$http_port" 80)" -p "$(publish "$stats_port" 1936)" -p "$(publish "$socket_port" 9999)"
    if has_certificates || uses_acme; then
        access=ro
        ! uses_acme || access=rw
        set -- "$@" --volume "$certs:/certs:$access" -p "$(publish "$https_port" 443)"
        # Where to redirect to; a port that Docker chooses is not known yet.
        case $https_port in 0 | 443) ;; *) set -- "$@" --env "HTTPS_PORT=$https_port" ;; esac
    fi
    if uses_acme; then
        set -- "$@" --env "ACME_EMAIL=$ACME_EMAIL" --env "ACME_DOMAINS=$ACME_DOMAINS" ${ACME_DIRECTORY:+--env "ACME_DIRECTORY=$ACME_DIRECTORY"}
    fi
    if [ -n "${STATS_AUTH_FILE:-}" ]; then
        set -- "$@" --volume "$(realpath "$STATS_AUTH_FILE"):/run/secrets/stats_users:ro" --env STATS_AUTH_FILE=/run/secrets/stats_users
    fi
    if is_kept "$ha" "$@"; then
        say "keeping $ha"
    else
        old=$(lab_containers --format '{{.Names}}' | tr '\n' ' ')
        [ -z "$old" ] || say "$(why_replaced "$ha" ha): removing ${old% } to start again"
        trap 'exit 129' HUP
        trap 'exit 130' INT
        trap 'exit 143' TERM
        trap 'down' EXIT # if anything fails from here on, leave nothing half-started
        remove_containers
        network_exists || docker network create "$network" >/dev/null
        run "$ha" "$@"
    fi
    number=0
    wanted=" $ha "
    while [ "$number" -lt "$nodes" ]; do
        number=$((number + 1))
        name=${prefix}s$number
        wanted="$wanted$name "
        ! is_kept "$name" webapp || continue
        ! docker container inspect "$name" >/dev/null 2>&1 || {
            say "$(why_replaced "$name" webapp): stopping it"
            stop_containers "$name"
        }
        run "$name" webapp
    done
    say "waiting until every node answers through the balancer"
    wait_for_nodes || die "not every node answered within a minute: $(docker logs --tail 3 "$ha" 2>&1 | tail -n 1)"
    trap - EXIT HUP INT TERM
    stop_others

    next=${prefix}s$((nodes + 1))
    cat <<TEXT
==> Nodes that answer: $nodes. Open:
      http://$(where 80)/        JSON from one of the nodes
      http://$(where 1936)/live  the nodes live, in the four states
      http://$(where 1936)/      HAProxy's statistics; $(where 9999) takes commands such as 'show stat'$(where_https)
    Try next:
      docker run -d --network $network --name $next softengheigvd/webapp
      docker exec $ha show-nodes
      docker exec $ha cat /usr/local/etc/haproxy/haproxy.cfg
      docker stop ${prefix}s1
      docker logs $ha
    Remove everything: ${prefix:+PREFIX=$prefix }${NETWORK:+NETWORK=$NETWORK }$0 down
TEXT
}

no_key=
tls=
while :; do
    case ${1-} in
        --no-key) no_key=--no-key ;;
        --tls) tls=--tls ;;
        *) break ;;
    esac
    shift
done
nodes=${1-2}
certs=$(realpath -m "${CERTS:-certs}")
http_port=${HTTP_PORT:-80}
https_port=${HTTPS_PORT:-443}
stats_port=${STATS_PORT:-1936}
socket_port=${SOCKET_PORT:-9999}
[ $# -le 1 ] || die "too many arguments, see --help"
case $nodes in
    -h | --help) help ;;
    down) down ;;
    [1-9] | [1-4][0-9] | 50) start ;;
    *) die "'$nodes': must be the number of nodes, 1 to 50, or down; see --help" ;;
esac
