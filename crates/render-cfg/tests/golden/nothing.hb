{{#each addresses}}
    server {{host}}
{{/each}}
