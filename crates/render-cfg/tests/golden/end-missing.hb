global
{{#each addresses}}
    server {{host}}
