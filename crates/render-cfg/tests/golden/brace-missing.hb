global
{{#each addresses}}
    server {{host}
{{/each}}
