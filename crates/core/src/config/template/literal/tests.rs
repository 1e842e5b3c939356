//! What is filled in here is what the engine gives.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use super::*;
use crate::config::template::{Context, engine};
use crate::node::Node;
use crate::service::{Known, Services};

/// Without and with what a context can have.
fn contexts() -> [Context; 2] {
    let [certificates, acme, stats_users] =
        ["/run/haproxy/certs", "abc", "    user a password b\n    user c password d"].map(str::to_owned);
    [Context::default(), Context { certificates, acme, stats_users }]
}

/// What becomes of a template with these nodes: here, and by the engine.
fn both(literal: &Literal, template: &str, nodes: &[Node], context: &Context) -> (Option<String>, Option<String>) {
    let (nodes, known, settings) = (nodes.iter().collect::<Vec<_>>(), Known::default(), BTreeMap::new());
    let data = Data::new(&nodes, &Services::of(&nodes, &known), "3000".parse().unwrap(), context, &settings);
    (Some(literal.fill(&data)), engine(template).ok().and_then(|engine| engine.render("", &data).ok()))
}

fn nodes() -> [Node; 3] {
    [
        "s1 172.18.0.2",
        "s2 fd00::2 port=80 weight=5 drain=yes",
        "s3 172.18.0.3 role=shop host=a.example+*.b.example path=/x cookie=none check=/",
    ]
    .map(|line| line.parse().unwrap())
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
            for context in &contexts() {
                let (here, by_engine) = both(&plain, template, &nodes[..count], context);
                assert_eq!(here, by_engine, "{template:?}");
            }
        }
    }
    assert!(understood > 100, "{understood} of {}", all.len());
}

/// One of the first words, or seldom one of the others.
fn word(usual: &'static [&'static str], others: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![30 => select(usual), 1 => select(others)].prop_map(str::to_owned)
}

fn field(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let space = || word(&["", "", " ", "\t", " \t "], &["\n", "~", "\u{a0}"]);
    let others =
        &["drain", "hots", "this", "this.host", "@index", "[host]", "../x", "&host", "lookup this 'host'", "#each addresses"];
    (space(), word(names, others), space()).prop_map(|(before, name, after)| format!("{{{{{before}{name}{after}}}}}"))
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

/// A line with a tag that opens or closes a block, mostly as it should be.
fn tag(usual: &'static [&'static str]) -> impl Strategy<Value = String> {
    let others = &[
        "{{~#each addresses}}",
        "{{#each addresses~}}",
        "{{#each addresses as |n|}}",
        "{{# each addresses}}",
        "{{#each nodes}}",
        "{{/each~}}",
        "{{~/each}}",
        "{{/ each}}",
        "{{/each}} ",
        "{{/if}}",
        "{{else}}",
        "x",
    ];
    (word(usual, others), word(&["\n"], &["", " \n", "\r\n"])).prop_map(|(tag, end)| tag + &end)
}

/// Some text with names, whose last line mostly ends.
fn words(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    (vec(prop_oneof![text(), field(names)], 0..5), word(&["\n"], &["", " \n"])).prop_map(|(pieces, end)| pieces.concat() + &end)
}

fn join<T: Strategy<Value = Vec<String>>>(texts: T) -> impl Strategy<Value = String> {
    texts.prop_map(|texts| texts.concat())
}

fn of_nodes(open: &'static [&'static str]) -> impl Strategy<Value = String> {
    let names = &["host", "ip", "port", "weight"][..];
    let drain = (tag(&["{{#if drain}}", "  {{ #if  drain }}"]), words(names), tag(&["{{/if}}"]));
    let drain = prop_oneof![2 => Just(String::new()), 1 => drain.prop_map(|(open, body, close)| open + &body + &close)];
    let parts = (tag(open), words(names), drain, words(names), tag(&["{{/each}}", "  {{ /each }}"]));
    parts.prop_map(|(open, before, drain, after, close)| [open, before, drain, after, close].concat())
}

fn of_services() -> impl Strategy<Value = String> {
    let names = &["name", "hosts", "paths", "check", "cookie"][..];
    let cookie = (tag(&["{{#if cookie}}"]), words(names), tag(&["\t{{/if}}"])).prop_map(|(a, b, c)| a + &b + &c);
    let nodes = of_nodes(&["{{#each nodes}}", " {{#each nodes}}"]);
    let inner = join(vec(prop_oneof![words(names), cookie, nodes], 0..4));
    (tag(&["{{#each services}}"]), inner, tag(&["{{/each}}"])).prop_map(|(open, inner, close)| open + &inner + &close)
}

fn of_routes() -> impl Strategy<Value = String> {
    let parts = (tag(&["{{#each routes}}"]), words(&["name", "condition"]), tag(&["{{/each}}"]));
    parts.prop_map(|(open, body, close)| open + &body + &close)
}

fn template() -> impl Strategy<Value = String> {
    let nodes = of_nodes(&["{{#each addresses}}", "{{ #each  addresses }}", "\t{{#each\taddresses}}"]);
    let top = || words(&["fallback", "certificates", "acme", "stats_users"]);
    let condition =
        tag(&["{{#if unclaimed}}", "{{#if certificates}}", "{{#if acme}}", "{{#if stats_users}}", "{{#if fallback}}"]);
    let condition = (condition, top(), tag(&["{{/if}}"])).prop_map(|(open, body, close)| open + &body + &close);
    let part = prop_oneof![2 => top(), 3 => nodes, 2 => of_services(), 1 => of_routes(), 1 => condition];
    join(vec(part, 0..4))
}

fn node() -> impl Strategy<Value = Node> {
    let tags = &[
        "",
        " port=80",
        " weight=0",
        " port=65535 weight=256",
        " drain=yes",
        " role=shop",
        " role=api host=a.b path=/x cookie=none",
    ][..];
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
        for context in &contexts() {
            let (here, by_engine) = both(&plain, &template, &nodes, context);
            prop_assert_eq!(here, by_engine, "{:?}", template);
        }
        Ok(())
    };
    TestRunner::new(config.clone()).run(&(template(), vec(node(), 0..4)), compare).unwrap();
    assert!(understood.get() > config.cases / 4, "it understood {} of {}", understood.get(), config.cases);
}

#[test]
fn the_template_of_the_image_and_the_lab_s_are_understood() {
    assert!(Literal::parse(include_str!("../../../../../../ha/config/haproxy.cfg.hb")).is_some());
    assert!(Literal::parse("backend nodes\n{{#each addresses}}\n  server {{ host }} {{ ip }}:3000 check\n{{/each}}\n").is_some());
}
