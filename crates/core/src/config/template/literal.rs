//! A fast path for templates that only repeat some lines for each node, service or route, such as the lab's and ours.
//!
//! The template engine takes a millisecond to parse a template, and 3 µs for each name of each node. That is too slow for a
//! handler that should finish within two milliseconds (measured by `bench/handlers`). Any other template is left to the
//! engine.

use std::fmt::{Display, Write};

use super::data::{Data, NodeFields, RouteFields, ServiceFields};

/// Maximum depth of blocks, far above that of a sensible template.
const MAX_DEPTH: usize = 8;

/// Text with names of fields, and blocks whose tags are on lines of their own.
#[derive(Debug)]
pub(super) struct Literal(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Name(Name),
    Each(List, Vec<Piece>),
    If(Condition, Vec<Piece>),
}

/// What names in a template refer to.
#[derive(Debug, Clone, Copy)]
enum Scope<'a> {
    Top(&'a Data<'a>),
    Node(&'a NodeFields<'a>),
    Service(&'a ServiceFields<'a>),
    Route(&'a RouteFields<'a>),
}

/// The kind of a [`Scope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Top,
    Node,
    Service,
    Route,
}

#[derive(Debug, Clone, Copy)]
enum List {
    Addresses,
    Services,
    Nodes,
    Routes,
}

#[derive(Debug, Clone, Copy)]
enum Condition {
    Unclaimed,
    Cookie,
    Drain,
    /// That a text is not empty.
    Text(Text),
}

/// Texts at the top level.
#[derive(Debug, Clone, Copy)]
enum Text {
    Fallback,
    Certificates,
    Acme,
    StatsUsers,
}

impl Text {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "fallback" => Self::Fallback,
            "certificates" => Self::Certificates,
            "acme" => Self::Acme,
            "stats_users" => Self::StatsUsers,
            _ => return None,
        })
    }

    fn of<'a>(self, data: &Data<'a>) -> &'a str {
        match self {
            Self::Fallback => data.fallback,
            Self::Certificates => data.certificates,
            Self::Acme => data.acme,
            Self::StatsUsers => data.stats_users,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Name {
    Host,
    Ip,
    Port,
    Weight,
    Service,
    Hosts,
    Paths,
    Check,
    Cookie,
    Route,
    Condition,
    Text(Text),
}

impl Literal {
    /// Parses a template; `None` if it needs the engine.
    pub(super) fn parse(template: &str) -> Option<Self> {
        // A backslash can escape the tag after it, and a carriage return hides the end of a line.
        if template.contains("\\{") || template.contains('\r') {
            return None;
        }
        block(&mut template.split_inclusive('\n'), Kind::Top, None, 0).map(Self)
    }

    /// Renders the template.
    pub(super) fn fill(&self, data: &Data<'_>) -> String {
        let mut text = String::new();
        fill(&self.0, Scope::Top(data), &mut text);
        text
    }
}

fn fill(pieces: &[Piece], scope: Scope<'_>, text: &mut String) {
    for piece in pieces {
        match (piece, scope) {
            (Piece::Text(piece), _) => text.push_str(piece),
            (Piece::Name(name), _) => push_value(*name, scope, text),
            (Piece::Each(List::Addresses, body), Scope::Top(data)) => {
                data.addresses.iter().for_each(|node| fill(body, Scope::Node(node), text));
            }
            (Piece::Each(List::Services, body), Scope::Top(data)) => {
                data.services.iter().for_each(|service| fill(body, Scope::Service(service), text));
            }
            (Piece::Each(List::Routes, body), Scope::Top(data)) => {
                data.routes.iter().for_each(|route| fill(body, Scope::Route(route), text));
            }
            (Piece::Each(List::Nodes, body), Scope::Service(service)) => {
                service.nodes.iter().for_each(|node| fill(body, Scope::Node(node), text));
            }
            (Piece::If(condition, body), _) if is_true(*condition, scope) => fill(body, scope, text),
            (Piece::Each(..) | Piece::If(..), _) => {}
        }
    }
}

fn is_true(condition: Condition, scope: Scope<'_>) -> bool {
    match (condition, scope) {
        (Condition::Unclaimed, Scope::Top(data)) => data.unclaimed,
        (Condition::Text(name), Scope::Top(data)) => !name.of(data).is_empty(),
        (Condition::Cookie, Scope::Service(service)) => !service.cookie.is_empty(),
        (Condition::Drain, Scope::Node(node)) => node.drain,
        _ => false,
    }
}

/// The parser admits a name only where the scope has it.
fn push_value(name: Name, scope: Scope<'_>, text: &mut String) {
    match (scope, name) {
        (Scope::Node(node), Name::Host) => text.push_str(node.host),
        (Scope::Node(node), Name::Ip) => push(text, node.ip),
        (Scope::Node(node), Name::Port) => push(text, node.port),
        (Scope::Node(node), Name::Weight) => push(text, node.weight),
        (Scope::Service(service), Name::Service) => text.push_str(service.name),
        (Scope::Service(service), Name::Hosts) => text.push_str(&service.hosts),
        (Scope::Service(service), Name::Paths) => text.push_str(&service.paths),
        (Scope::Service(service), Name::Check) => text.push_str(service.check),
        (Scope::Service(service), Name::Cookie) => text.push_str(service.cookie),
        (Scope::Route(route), Name::Route) => text.push_str(route.name),
        (Scope::Route(route), Name::Condition) => text.push_str(&route.condition),
        (Scope::Top(data), Name::Text(name)) => text.push_str(name.of(data)),
        _ => {}
    }
}

fn push(text: &mut String, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{value}");
}

/// Parses lines up to the tag that closes the block.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>, kind: Kind, close: Option<&str>, depth: usize) -> Option<Vec<Piece>> {
    let (mut found, mut text) = (Vec::new(), String::new());
    if depth > MAX_DEPTH {
        return None;
    }
    while let Some(line) = lines.next() {
        let Some(words) = tag(line) else {
            text.push_str(line);
            continue;
        };
        found.extend(pieces(&text, kind)?);
        text.clear();
        match (words.as_slice(), kind) {
            ([word], _) if Some(*word) == close => return Some(found),
            (["#each", list], _) => {
                let (list, inner) = match (kind, *list) {
                    (Kind::Top, "addresses") => (List::Addresses, Kind::Node),
                    (Kind::Top, "services") => (List::Services, Kind::Service),
                    (Kind::Top, "routes") => (List::Routes, Kind::Route),
                    (Kind::Service, "nodes") => (List::Nodes, Kind::Node),
                    _ => return None,
                };
                found.push(Piece::Each(list, block(lines, inner, Some("/each"), depth + 1)?));
            }
            (["#if", name], _) => {
                let condition = match (kind, *name) {
                    (Kind::Top, "unclaimed") => Condition::Unclaimed,
                    (Kind::Service, "cookie") => Condition::Cookie,
                    (Kind::Node, "drain") => Condition::Drain,
                    (Kind::Top, name) => Condition::Text(Text::parse(name)?),
                    _ => return None,
                };
                found.push(Piece::If(condition, block(lines, kind, Some("/if"), depth + 1)?));
            }
            _ => return None,
        }
    }
    found.extend(pieces(&text, kind)?);
    close.is_none().then_some(found)
}

/// The words of a tag that is alone on its line and opens or closes a block.
fn tag(line: &str) -> Option<Vec<&str>> {
    // How the engine treats whitespace after a tag depends on what follows.
    let found = line.strip_suffix('\n').unwrap_or(line).trim_start_matches([' ', '\t']);
    let words = found.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"))?;
    let words: Vec<&str> = words.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    words.first().is_some_and(|word| word.starts_with(['#', '/'])).then_some(words)
}

/// Splits text without blocks at the names in it.
fn pieces(mut text: &str, kind: Kind) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while let Some((before, rest)) = text.split_once("{{") {
        let (name, rest) = rest.split_once("}}")?;
        let name = match (kind, name.trim_matches([' ', '\t'])) {
            (Kind::Node, "host") => Name::Host,
            (Kind::Node, "ip") => Name::Ip,
            (Kind::Node, "port") => Name::Port,
            (Kind::Node, "weight") => Name::Weight,
            (Kind::Service, "name") => Name::Service,
            (Kind::Service, "hosts") => Name::Hosts,
            (Kind::Service, "paths") => Name::Paths,
            (Kind::Service, "check") => Name::Check,
            (Kind::Service, "cookie") => Name::Cookie,
            (Kind::Route, "name") => Name::Route,
            (Kind::Route, "condition") => Name::Condition,
            (Kind::Top, name) => Name::Text(Text::parse(name)?),
            _ => return None,
        };
        pieces.extend([Piece::Text(before.to_owned()), Piece::Name(name)]);
        text = rest;
    }
    pieces.push(Piece::Text(text.to_owned()));
    let closed = |piece: &Piece| !matches!(piece, Piece::Text(text) if text.contains("}}") || text.ends_with('{'));
    pieces.iter().all(closed).then_some(pieces)
}

#[cfg(test)]
mod tests;
