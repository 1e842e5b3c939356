global
{{> defaults}}
