{{#each addresses}}
    use-server {{host}} if { req.hdr(x-node) -m str {{host}} }
{{/each}}
{{#each addresses}}
    server {{host}} {{ip}}:{{port}}
{{/each}}
{{#with addresses.[0]}}# first: {{host}}{{/with}}
