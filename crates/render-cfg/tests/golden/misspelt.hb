global
{{#each addresses}}
    server {{hots}} {{ip}}:{{port}}
{{/each}}
