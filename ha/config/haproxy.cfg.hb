# Rendered from the template /config/haproxy.cfg.hb; edit that one, this file is replaced.

global
    log stdout format raw local0 info
    # For the tools; who may write to it controls HAProxy.
    stats socket /run/haproxy/admin.sock mode 600 level admin
    # For everybody: shows, changes nothing. Its few connections cannot use up those of the admin socket.
    stats socket ipv4@*:9999 level user maxconn 5
    stats maxconn 100
    # An old worker finishes its connections after a reload, but not for ever.
    hard-stop-after 60s

defaults
    mode http
    log global
    option httplog
    # HTTP_LOG: all requests (the default), only the failed ones, or none.
.if streq("$HTTP_LOG",errors)
    option dontlog-normal
.endif
    timeout connect 500ms
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 15s
    timeout tunnel 1h

    # A request that got no answer goes to another node.
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
    # After a reload, an idle client connection closes after its next answer, not under its next request.
    option idle-close-on-response

frontend http
    bind *:80
.if streq("$HTTP_LOG",off)
    http-request set-log-level silent
.endif
    # What a client says of where it comes from counts for nothing. Behind a proxy of yours: `option forwardfor` instead,
    # which adds to the header.
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Port %[dst_port]
    # A request that comes round again, through a node that forwards to us, ends here. Each balancer is known by its
    # hostname, so that there may be others in a row.
    http-request set-var(txn.balancer) hostname
    http-request return status 508 content-type text/plain string "This request was here before.\n" if { req.hdr(X-Balancer),strcmp(txn.balancer) eq 0 }
    http-request add-header X-Balancer %[var(txn.balancer)]
    # The node's own promise about its connection to us.
    http-response del-header keep-alive
    default_backend nodes

backend nodes
    # What HAProxy logs about servers, UP and DOWN, it also writes to standard error: once will do. Requests are logged by
    # the frontend.
    no log
    balance roundrobin
    # A session stays on its node: HAProxy puts the node's name before the application's own cookie.
    cookie NODESESSID prefix nocache
    option httpchk GET /health
    # What is not safe to run twice is not sent twice.
    http-request disable-l7-retry unless METH_GET
    http-request return status 503 content-type text/plain lf-string "No node is ready. Start one: docker run -d --network heig --name s1 softengheigvd/webapp\n" if { nbsrv eq 0 }
{{#each addresses}}
    server {{host}} {{ip}}:{{port}} weight {{weight}} cookie {{host}} check inter 1s fall 2 rise 1 observe layer4 error-limit 2 on-error mark-down
{{/each}}

listen stats
    bind *:1936
    option dontlog-normal
    # For Prometheus; docs/metrics.md tells what to look at.
    http-request use-service prometheus-exporter if { path /metrics }
    stats enable
    stats uri /
    stats refresh 5s
    stats hide-version
    stats show-legends
