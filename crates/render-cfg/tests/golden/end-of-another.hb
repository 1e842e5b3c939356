global
{{#each addresses}}
    server {{host}}
{{/if}}
