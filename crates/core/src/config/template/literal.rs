//! A fast path for templates that only repeat some lines for each node, such as the lab's and ours.
//!
//! The template engine takes a millisecond to parse a template, and 3 µs for each name of each node. That is too slow for a
//! handler that should finish within two milliseconds (measured by `bench/handlers`). Any other template is left to the
//! engine.

use std::fmt::{Display, Write};

use super::Fields;

const OPEN: [&str; 2] = ["#each", "addresses"];
const CLOSE: [&str; 1] = ["/each"];

/// Text, one block `{{#each addresses}}` with its tags on lines of their own, text.
#[derive(Debug)]
pub(super) struct Literal {
    before: String,
    body: Vec<Piece>,
    after: String,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Name(Name),
}

#[derive(Debug, Clone, Copy)]
enum Name {
    Host,
    Ip,
    Port,
    Weight,
}

impl Literal {
    /// Parses a template; `None` if it needs the engine.
    pub(super) fn parse(template: &str) -> Option<Self> {
        let (before, rest) = split_at_tag(template, &OPEN)?;
        let (body, after) = split_at_tag(rest, &CLOSE)?;
        let no_tags = |text: &str| !text.contains("{{") && !text.contains("}}");
        // A backslash can escape the tag after it, and a carriage return hides the end of a line.
        if !no_tags(before) || !no_tags(after) || template.contains("\\{") || template.contains('\r') {
            return None;
        }
        Some(Self { before: before.to_owned(), body: pieces(body)?, after: after.to_owned() })
    }

    /// Renders the template for these nodes.
    pub(super) fn fill<'a>(&self, nodes: impl IntoIterator<Item = Fields<'a>>) -> String {
        let mut text = self.before.clone();
        for node in nodes {
            for piece in &self.body {
                match piece {
                    Piece::Text(piece) => text.push_str(piece),
                    Piece::Name(Name::Host) => text.push_str(node.host),
                    Piece::Name(Name::Ip) => push(&mut text, node.ip),
                    Piece::Name(Name::Port) => push(&mut text, node.port),
                    Piece::Name(Name::Weight) => push(&mut text, node.weight),
                }
            }
        }
        text.push_str(&self.after);
        text
    }
}

fn push(text: &mut String, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{value}");
}

/// Splits at the first line that consists of this tag alone. The line belongs to neither part.
fn split_at_tag<'a>(text: &'a str, tag: &[&str]) -> Option<(&'a str, &'a str)> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        // How the engine treats whitespace after a tag depends on what follows.
        let found = line.strip_suffix('\n').unwrap_or(line).trim_start_matches([' ', '\t']);
        let words = found.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        if words.is_some_and(|words| words.split([' ', '\t']).filter(|word| !word.is_empty()).eq(tag.iter().copied())) {
            return Some((text.get(..start)?, text.get(start + line.len()..)?));
        }
        start += line.len();
    }
    None
}

/// Splits a body into text and the names of a node's fields.
fn pieces(mut body: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while let Some((text, rest)) = body.split_once("{{") {
        let (name, rest) = rest.split_once("}}")?;
        let name = match name.trim_matches([' ', '\t']) {
            "host" => Name::Host,
            "ip" => Name::Ip,
            "port" => Name::Port,
            "weight" => Name::Weight,
            _ => return None,
        };
        pieces.extend([Piece::Text(text.to_owned()), Piece::Name(name)]);
        body = rest;
    }
    pieces.push(Piece::Text(body.to_owned()));
    let closed = |piece: &Piece| !matches!(piece, Piece::Text(text) if text.contains("}}") || text.ends_with('{'));
    pieces.iter().all(closed).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::config::template::{Data, engine, fields};
    use crate::node::Node;

    /// What the engine makes of a template, for the nodes of [`nodes`] and for none.
    fn by_engine(template: &str, addresses: Vec<Fields<'_>>) -> Option<String> {
        engine(template).ok()?.render("", &Data { addresses, settings: &std::collections::BTreeMap::new() }).ok()
    }

    fn nodes() -> [Node; 2] {
        ["s1 172.18.0.2", "s2 fd00::2 port=80 weight=5 drain=yes"].map(|line| line.parse().unwrap())
    }

    /// All ways to take one word of each list.
    fn templates(lists: &[&[&str]]) -> Vec<String> {
        lists.iter().fold(vec![String::new()], |texts, list| {
            texts.iter().flat_map(|text| list.iter().map(move |word| format!("{text}{word}"))).collect()
        })
    }

    #[test]
    fn what_it_understands_it_fills_in_as_the_engine_does() {
        let nodes = nodes();
        let all = templates(&[
            &["", "global\n", "  a } b\n\n", "\n\n  ", "x", "{{host}}\n", "a {{{\n", "\\", "\\\n"],
            &["{{#each addresses}}", "{{ #each  addresses }}", "{{~#each addresses}}", "{{#each addresses}} ", "{{#each nodes}}"],
            &["\n", "", "\r\n"],
            &[
                "",
                " server {{host}} {{ ip }}:{{port}}\n",
                "{{host}}{{weight}}",
                "\n{{ip}}\n\n",
                "{{{host}}}\n",
                "{{#if drain}}x{{/if}}\n",
                "{{@index}}\n",
                "{{hots}}\n",
                "\\{{host}}\n",
                "{{{host}}\n",
                "}} {{host}}\n",
                "{ {{host}} } {x}\n",
            ],
            &["{{/each}}", "  {{/each}}\t", "{{/each}} x", "{{ /each}}", "{{~/each}}", "{{/if}}"],
            &["", "\n", "\n\nlisten\n", "\n {{host}}", "\n }}", "\n}"],
        ]);
        let mut understood = 0;
        for template in &all {
            let Some(plain) = Literal::parse(template) else { continue };
            understood += 1;
            for count in 0..=nodes.len() {
                let fields = || nodes.iter().take(count).map(|node| fields(node, "3000".parse().unwrap())).collect::<Vec<_>>();
                assert_eq!(Some(plain.fill(fields())), by_engine(template, fields()), "{template:?}");
            }
        }
        assert!(understood > 100, "{understood} of {}", all.len());
    }

    /// One of the first words, or seldom one of the others.
    fn word(usual: &'static [&'static str], others: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop_oneof![30 => select(usual), 1 => select(others)].prop_map(str::to_owned)
    }

    fn field() -> impl Strategy<Value = String> {
        let space = || word(&["", "", " ", "\t", " \t "], &["\n", "~", "\u{a0}"]);
        let others =
            &["drain", "hots", "this", "this.host", "@index", "[host]", "../x", "&host", "lookup this 'host'", "#each addresses"];
        (space(), word(&["host", "ip", "port", "weight"], others), space())
            .prop_map(|(before, name, after)| format!("{{{{{before}{name}{after}}}}}"))
    }

    fn text() -> impl Strategy<Value = String> {
        let usual = &["x", " server ", "\n", "\n\n", "  ", "\t", ":", "{ ", " }", "# '\"", "é$&<>", "\\ ", "{x}", "%[path] --"];
        let others = &[
            "\\",
            "{",
            "}",
            "\r\n",
            "{{",
            "}}",
            "{{{",
            "{{{host}}}",
            "{{{{host}}}}",
            "\\{{host}}",
            "{{! c }}",
            "{{!-- {{c}} --}}\n",
            "{{#if drain}}x{{/if}}",
            "{{#if drain}}\nx\n{{else}}\n{{/if}}\n",
            "{{> p}}",
            "{{else}}",
            "{{^}}",
            "{{/each}}",
            "\n{{#each addresses}}\n",
        ];
        prop_oneof![3 => word(usual, others), 1 => "\\PC{0,6}"]
    }

    fn template() -> impl Strategy<Value = String> {
        let texts = || vec(text(), 0..4).prop_map(|texts| texts.concat());
        let open = word(
            &["{{#each addresses}}", "{{ #each  addresses }}", "\t{{#each\taddresses}}"],
            &["{{~#each addresses}}", "{{#each addresses~}}", "{{#each addresses as |n|}}", "{{# each addresses}}", "x"],
        );
        let close = word(&["{{/each}}", "  {{ /each }}"], &["{{/each~}}", "{{~/each}}", "{{/ each}}", "{{/each}} ", "{{/if}}"]);
        let end = || word(&["\n"], &["", " \n", "\r\n"]);
        let body = vec(prop_oneof![text(), field()], 0..8).prop_map(|pieces| pieces.concat());
        let parts = ((texts(), end()), (open, end()), (body, end()), (close, prop_oneof![end(), Just(String::new())]), texts());
        parts.prop_map(|(before, open, body, close, after)| {
            let lines = [before, open, body, close].map(|(text, end)| text + &end).concat();
            lines + &after
        })
    }

    fn node() -> impl Strategy<Value = Node> {
        let tags = &["", " port=80", " weight=0", " port=65535 weight=256", " drain=yes"][..];
        ("[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", select(&["172.18.0.2", "fd00::2", "::ffff:1.2.3.4"][..]), select(tags))
            .prop_map(|(name, address, tags)| format!("{name} {address}{tags}").parse().unwrap())
    }

    #[test]
    fn whatever_it_understands_it_fills_in_as_the_engine_does() {
        let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
        let understood = Cell::new(0);
        let compare = |(template, nodes): (String, Vec<Node>)| {
            let Some(plain) = Literal::parse(&template) else { return Ok(()) };
            understood.set(understood.get() + 1);
            let fields = || nodes.iter().map(|node| fields(node, "3000".parse().unwrap())).collect::<Vec<_>>();
            prop_assert_eq!(Some(plain.fill(fields())), by_engine(&template, fields()), "{:?}", template);
            Ok(())
        };
        TestRunner::new(config.clone()).run(&(template(), vec(node(), 0..4)), compare).unwrap();
        assert!(understood.get() > config.cases / 4, "it understood {} of {}", understood.get(), config.cases);
    }

    #[test]
    fn the_template_of_the_image_and_the_lab_s_are_understood() {
        assert!(Literal::parse(include_str!("../../../../../ha/config/haproxy.cfg.hb")).is_some());
        assert!(
            Literal::parse("backend nodes\n{{#each addresses}}\n  server {{ host }} {{ ip }}:3000 check\n{{/each}}\n").is_some()
        );
    }
}
