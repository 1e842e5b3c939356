# host, ip, port, weight, drain
{{#each addresses}}
    server {{host}} {{ip}}:{{port}} weight {{weight}}{{#if drain}} # drains{{/if}}
{{/each}}
