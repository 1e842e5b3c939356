{{#*inline "a"}}{{> a}}{{/inline}}
{{> a}}
