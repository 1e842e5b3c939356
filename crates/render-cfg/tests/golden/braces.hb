defaults
    # Not for the engine: \{{host}} } {
    log-format "{ %ci } <&\"'>"
backend nodes
{{#each addresses}}
    http-request set-header X-Node "<{{host}}>" if { srv_id {{port}} }
{{/each}}
