frontend http
    bind *:80
{{#if certificates}}
    bind *:443 ssl crt {{certificates}}
{{/if}}
backend nodes
{{#each addresses}}
    server {{host}} {{ip}}:{{port}}
{{/each}}
