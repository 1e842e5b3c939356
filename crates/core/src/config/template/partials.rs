//! Detecting partials that include themselves, because the engine would recurse until the stack overflows.

use std::collections::{BTreeMap, BTreeSet};

use handlebars::Template;
use handlebars::template::{DecoratorTemplate, Parameter, TemplateElement};

/// The partials that each inline partial includes. `None` is a name that is only known when rendering.
type Included = BTreeMap<String, BTreeSet<Option<String>>>;

/// The name of an inline partial that includes itself, or may do so, directly or through others.
pub(super) fn circular(template: &Template) -> Option<String> {
    let mut included = Included::new();
    collect(template, None, &mut included);
    included.keys().find(|name| includes_itself(name, &included)).cloned()
}

fn includes_itself(name: &str, included: &Included) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![name];
    while let Some(partial) = next.pop() {
        for inner in included.get(partial).into_iter().flatten() {
            let Some(inner) = inner else { return true };
            if inner == name {
                return true;
            }
            if seen.insert(inner) {
                next.push(inner);
            }
        }
    }
    false
}

/// Collects what `template` includes, as part of the partial `inside`.
fn collect(template: &Template, inside: Option<&str>, included: &mut Included) {
    for element in &template.elements {
        match element {
            TemplateElement::HelperBlock(block) => {
                [&block.template, &block.inverse].into_iter().flatten().for_each(|inner| collect(inner, inside, included));
            }
            TemplateElement::DecoratorBlock(block) => {
                let name = inline_name(block).or(inside);
                block.template.iter().for_each(|inner| collect(inner, name, included));
            }
            TemplateElement::PartialExpression(partial) | TemplateElement::PartialBlock(partial) => {
                if let Some(inside) = inside {
                    included.entry(inside.to_owned()).or_default().insert(partial.name.as_name().map(str::to_owned));
                }
                partial.template.iter().for_each(|inner| collect(inner, inside, included));
            }
            _ => {}
        }
    }
}

/// The name in `{{#*inline "name"}}`.
fn inline_name(block: &DecoratorTemplate) -> Option<&str> {
    match block.params.first()? {
        Parameter::Literal(name) => name.as_str(),
        other => other.as_name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<String> {
        circular(&Template::compile(text).unwrap())
    }

    #[test]
    fn a_partial_that_leads_to_itself_is_found() {
        for text in [
            r#"{{#*inline "a"}}{{> a}}{{/inline}}{{> a}}"#,
            r#"{{#*inline "a"}}{{#if x}}{{else}}{{> a}}{{/if}}{{/inline}}"#,
            r#"{{#*inline "a"}}{{#> a}}x{{/a}}{{/inline}}"#,
            r#"{{#*inline "a"}}{{#> b}}{{> a}}{{/b}}{{/inline}}"#,
            r#"{{#*inline "b"}}{{> a}}{{/inline}}{{#if x}}{{#*inline "a"}}{{> c}}{{/inline}}{{/if}}{{#*inline "c"}}{{> b}}{{/inline}}"#,
            r#"{{#*inline "a"}}{{#*inline "b"}}{{> a}}{{/inline}}{{> b}}{{/inline}}"#,
            r#"{{#*inline "a"}}{{> (lookup this "x")}}{{/inline}}"#,
        ] {
            assert!(found(text).is_some(), "{text}");
        }
    }

    #[test]
    fn others_are_as_good_as_before() {
        for text in [
            "{{#each addresses}}{{host}}{{/each}}",
            r#"{{#*inline "a"}}{{host}}{{/inline}}{{#each addresses}}{{> a}}{{> a}}{{/each}}"#,
            r#"{{#*inline "a"}}{{> b}}{{> c}}{{/inline}}{{#*inline "b"}}{{> c}}{{/inline}}{{#*inline "c"}}{{/inline}}{{> a}}"#,
            r#"{{#*inline "a"}}<{{> @partial-block}}>{{/inline}}{{#> a}}x{{/a}}"#,
            r#"{{> (lookup this "x")}}"#,
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
