# Rendered from the template /config/haproxy.cfg.hb. Edit that one: this file is overwritten.

global
    log stdout format raw local0 info
    # For the tools. Whoever can write to it controls HAProxy.
    stats socket /run/haproxy/admin.sock mode 600 level admin
    # For everybody: read-only. Limited to a few connections, so that it cannot use up those of the admin socket.
    stats socket ipv4@*:9999 level user maxconn 5
    stats maxconn 100
    # After a reload, the old worker finishes its connections, within this time.
    hard-stop-after 60s

defaults
    mode http
    log global
    option httplog
    # HTTP_LOG: all requests (the default), only failed ones, or none.
.if streq("$HTTP_LOG",errors)
    option dontlog-normal
.endif
    timeout connect 500ms
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 15s
    timeout tunnel 1h

    # A request without an answer is retried on another node.
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
    # After a reload, idle client connections are closed after their next response instead of during a request.
    option idle-close-on-response

frontend http
    bind *:80
.if streq("$HTTP_LOG",off)
    http-request set-log-level silent
.endif
    # Do not trust what clients claim about their address. Behind a proxy of your own, use `option forwardfor` instead, which
    # appends to the header.
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Port %[dst_port]
    # Stop loops: a request that comes back through a node that forwards to us ends here. Each balancer identifies itself by
    # its hostname, so that balancers can be chained.
    http-request set-var(txn.balancer) hostname
    http-request return status 508 content-type text/plain string "This request was here before.\n" if { req.hdr(X-Balancer),strcmp(txn.balancer) eq 0 }
    http-request add-header X-Balancer %[var(txn.balancer)]
    # It is about the connection between the node and HAProxy.
    http-response del-header keep-alive
    default_backend nodes

backend nodes
    # HAProxy also writes UP and DOWN of servers to standard error, so do not log them twice. Requests are logged by the
    # frontend.
    no log
    balance roundrobin
    # Sticky sessions: HAProxy prefixes the application's own cookie with the node's name.
    cookie NODESESSID prefix nocache
    option httpchk GET /health
    # Only retry requests that are safe to repeat.
    http-request disable-l7-retry unless METH_GET
    http-request return status 503 content-type text/plain lf-string "No node is ready. Start one: docker run -d --network heig --name s1 softengheigvd/webapp\n" if { nbsrv eq 0 }
{{#each addresses}}
    server {{host}} {{ip}}:{{port}} weight {{weight}} cookie {{host}} check inter 1s fall 2 rise 1 observe layer4 error-limit 2 on-error mark-down
{{/each}}

listen stats
    bind *:1936
    option dontlog-normal
    # For Prometheus; docs/metrics.md says what to watch.
    http-request use-service prometheus-exporter if { path /metrics }
    stats enable
    stats uri /
    stats refresh 5s
    stats hide-version
    stats show-legends
