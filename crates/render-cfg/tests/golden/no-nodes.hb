backend nodes
{{#each addresses}}
    server {{host}} {{ip}}:{{port}}
{{/each}}
    # the end
