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
{{#if certificates}}
    # Mozilla's intermediate settings: TLS 1.2 and 1.3.
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets prefer-client-ciphers
    ssl-default-bind-curves X25519:prime256v1:secp384r1
    ssl-default-bind-ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
    tune.ssl.default-dh-param 2048
{{/if}}

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

    # A request without an answer is retried on another node, often enough that most nodes may die at once. One that gets none
    # within `timeout server` is not, because it may just be slow, and would be slow again; nor is one that is answered by an
    # error, because the client's session is on the node that has answered.
    retries 10
    option redispatch 1
    retry-on conn-failure empty-response
    # Requests that wait for a node whose network is gone are retried after a few seconds.
    option srvtcpka
    srvtcpka-idle 2s
    srvtcpka-intvl 1s
    srvtcpka-cnt 2
    # What clients see when no node can answer. For operators: show-nodes.
    http-error status 503 content-type text/plain string "The service is unavailable: no server is ready. Please try again in a moment.\n"
    # After a reload, idle client connections are closed after their next response instead of during a request.
    option idle-close-on-response

frontend http
    bind *:80
{{#if acme}}
    # ACME challenges. The answers only need the account's thumbprint, so every balancer can give them.
    http-request return status 200 content-type text/plain lf-string "%[path,field(4,/)].{{acme}}" if { path_reg ^/[.]well-known/acme-challenge/[-_A-Za-z0-9]+$ }
{{/if}}
{{#if certificates}}
    # The name that the client asks for chooses the certificate; without one for it, the first file counts.
    bind *:443 ssl crt {{certificates}} alpn h2,http/1.1
    # HTTPS_REDIRECT=off serves HTTP as well. HTTPS_PORT is where clients reach port 443. Not a permanent redirect, which
    # browsers would remember when there is no certificate anymore.
.if strneq("$HTTPS_REDIRECT",off)
    http-request set-var-fmt(txn.host) "%[req.hdr(host),regsub(:[0-9]*\$,)]:${HTTPS_PORT-443}"
    http-request redirect code 307 location "https://%[var(txn.host),regsub(:443\$,)]%[pathq]" unless { ssl_fc }
.endif
    http-request del-header X-Forwarded- -m beg
    http-request del-header Forwarded
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Proto https if { ssl_fc }
{{/if}}
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
{{#each routes}}
    use_backend {{name}} if {{condition}}
{{/each}}
    default_backend {{fallback}}

{{#each services}}
backend {{name}}
    # HAProxy also writes UP and DOWN of servers to standard error, so do not log them twice. Requests are logged by the
    # frontend.
    no log
    balance roundrobin
{{#if cookie}}
    # Sticky sessions: HAProxy prefixes the application's own cookie with a hash of the node's address and port. A session does
    # not follow a name to another address. The key is no secret, but a new one ends all sessions.
    cookie {{cookie}} prefix nocache dynamic
    dynamic-cookie-key softengheigvd
{{/if}}
    option httpchk GET {{check}}
    # Only retry requests that are safe to repeat.
    http-request disable-l7-retry unless METH_GET
{{#each nodes}}
    server {{host}} {{ip}}:{{port}} weight {{weight}} check inter 1s fall 2 rise 1 observe layer4 error-limit 2 on-error mark-down
{{/each}}

{{/each}}
{{#if unclaimed}}
backend unclaimed
    no log
    http-request return status 404 content-type text/plain string "No service answers here.\n"

{{/if}}
frontend stats
    bind *:1936
    option dontlog-normal
    # For Prometheus; docs/metrics.md says what to watch.
    http-request use-service prometheus-exporter if { path /metrics }
{{#if stats_users}}
    http-request auth realm statistics unless { http_auth(stats) }
{{/if}}
    use_backend live if { path /live } || { path_beg /live/ }
    default_backend stats

backend stats
    stats enable
    stats uri /
    stats refresh 5s
    stats hide-version
    stats show-legends

backend live
    # The service `live`, if it runs: show-nodes --serve. docs/live.md describes it.
    retries 0
    dispatch 127.0.0.1:1937
{{#if stats_users}}

userlist stats
{{stats_users}}
{{/if}}
