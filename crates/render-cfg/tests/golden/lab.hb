defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s

frontend web
    bind *:80
    default_backend nodes

backend nodes
    balance roundrobin
    cookie NODESESSID prefix nocache
    {{#each addresses}}
    server {{ host }} {{ ip }}:3000 check cookie {{ host }}
    {{/each}}
