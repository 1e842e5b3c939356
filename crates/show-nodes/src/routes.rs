//! Which service answers where.

use lb_core::service::Services;
use serde::Serialize;
use serde_json::{Value, json};

use crate::View;
use crate::nodes::Row;
use crate::table::{Colour, Style};

/// A place and its service.
#[derive(Debug, Serialize)]
struct Route<'a> {
    place: String,
    service: &'a str,
    /// Number of its registered nodes.
    nodes: usize,
    /// Of these, the ones that are up.
    up: usize,
}

impl<'a> Route<'a> {
    /// All routes, in the order in which they count.
    fn all(view: &View, services: &Services<'a>) -> Vec<Self> {
        let up = |row: &&Row| row.servers.iter().any(|server| server.state.starts_with("UP"));
        let route = |place: String, service: &'a str| {
            let rows = || view.nodes.rows.values().filter(|row| row.in_registry && row.service.as_deref() == Some(service));
            Self { place, service, nodes: rows().count(), up: rows().filter(up).count() }
        };
        services.routes.iter().map(|(place, role)| route(place.to_string(), role.as_str())).collect()
    }
}

/// The routes, followed by the claims that are void. `None` if they are not known.
#[must_use]
pub fn table(view: &View, style: Style) -> Option<String> {
    let services = view.states.services()?;
    let routes = Route::all(view, &services);
    let longest = |head: &str, cell: fn(&Route) -> usize| routes.iter().map(cell).chain([head.len()]).max().unwrap_or(0);
    let (place, service) = (longest("PLACE", |route| route.place.len()), longest("SERVICE", |route| route.service.len()));
    let head = format!("{:place$}  {:service$}  NODES  UP", "PLACE", "SERVICE");
    let mut lines = vec![style.paint(Colour::Bold, &head)];
    for route in &routes {
        let line = format!("{:place$}  {:service$}  {:<5}  {}", route.place, route.service, route.nodes, route.up);
        lines.push(if route.up == 0 { style.paint(Colour::Red, &line) } else { line });
    }
    if services.fallback().is_none() {
        lines.extend([String::new(), "no service answers elsewhere".to_owned()]);
    }
    if !services.conflicts.is_empty() {
        lines.push(String::new());
    }
    lines.extend(services.conflicts.iter().map(|conflict| style.paint(Colour::Yellow, &conflict.to_string())));
    Some(lines.join("\n") + "\n")
}

/// The same as JSON.
#[must_use]
pub fn json(view: &View) -> Option<String> {
    let services = view.states.services()?;
    let conflicts = services.conflicts.iter().map(|conflict| {
        json!({ "place": conflict.place.to_string(), "service": conflict.loser.as_str(), "has": conflict.winner.as_str() })
    });
    let conflicts: Vec<Value> = conflicts.collect();
    Some(format!("{}\n", json!({ "routes": Route::all(view, &services), "conflicts": conflicts })))
}
