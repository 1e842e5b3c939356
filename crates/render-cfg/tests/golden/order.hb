{{#each addresses}}
server {{host}} {{ip}}
{{/each}}
