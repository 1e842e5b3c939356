#!/bin/bash
# The lab's way to add a node, for comparison: write a file for the node, render the template with Handlebars, request a
# reload. Returns before the new HAProxy worker has started.
#
# Standard input: Serf's event lines. DIR: directory with the nodes, template, configuration and the master's process ID.
set -eu
while read -r name address role _; do
    [ "$role" = backend ] || continue
    echo "$name $address" >"$DIR/nodes/$name"
done
cat "$DIR"/nodes/* | node "$(dirname "$0")/render.js" "$DIR/haproxy.cfg.hb" >"$DIR/haproxy.cfg"
kill -USR2 "$(cat "$DIR/haproxy.pid")"
