global
{{#each addresses}}
    server {{upper host}}
{{/each}}
