{{#each routes}}
{{name}}: {{condition}} [{{host}}|{{path}}]
{{/each}}
else {{fallback}}{{#if unclaimed}}!{{/if}}
{{#each services}}
{{name}} at {{hosts}} {{paths}} checks {{check}} cookie {{cookie}}
{{#each nodes}}
  {{host}} {{ip}}:{{port}} weight {{weight}}{{#if drain}} drains{{/if}}
{{/each}}
{{/each}}
{{#each addresses}}
{{host}}
{{/each}}
