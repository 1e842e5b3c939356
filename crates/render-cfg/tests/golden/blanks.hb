{{! A comment of the template, which HAProxy never sees. }}
backend nodes
    {{#each addresses}}
    # {{@index}}: {{{ host }}}

    server {{host}}   {{~#if drain}} backup{{else}} check{{/if}}
    {{/each}}
