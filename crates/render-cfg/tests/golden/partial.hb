{{#*inline "line"}}
    server {{host}} {{ip}}:{{port}}
{{/inline}}
{{#each addresses}}
{{> line}}
{{/each}}
