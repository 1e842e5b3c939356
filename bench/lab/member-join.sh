#!/bin/bash
# The lab's way to take a node in, for comparison: a file for the node, the template filled in by Handlebars, a reload
# asked for. It returns before the new HAProxy worker has started.
#
# Standard input: Serf's event lines. DIR: where nodes, template, configuration and the master's process id are.
set -eu
while read -r name address role _; do
    [ "$role" = backend ] || continue
    echo "$name $address" >"$DIR/nodes/$name"
done
cat "$DIR"/nodes/* | node "$(dirname "$0")/render.js" "$DIR/haproxy.cfg.hb" >"$DIR/haproxy.cfg"
kill -USR2 "$(cat "$DIR/haproxy.pid")"
