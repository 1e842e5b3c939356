{{#each nodes}}
    server {{host}}
{{/each}}
