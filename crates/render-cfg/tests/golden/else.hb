backend nodes
{{#each addresses}}
    server {{host}} {{ip}}:{{port}} check
{{else}}
    http-request return status 503 content-type text/plain string "no node"
{{/each}}
