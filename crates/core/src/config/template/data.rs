//! The data of a template.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Context;
use crate::node::{Address, Node, Port, Weight};
use crate::service::{Cookie, Host, Place, Role, Services, UNCLAIMED, UrlPath};

/// Health check of a service whose nodes do not ask for another.
const CHECK: &str = "/health";
/// Session cookie of a service whose nodes do not ask for another.
const COOKIE: &str = "NODESESSID";

/// The names of a template.
#[derive(Debug, Serialize)]
pub(super) struct Data<'a> {
    /// The nodes, sorted by name, so that two balancers write the same file.
    pub(super) addresses: Vec<NodeFields<'a>>,
    /// The services, sorted by role.
    pub(super) services: Vec<ServiceFields<'a>>,
    /// Who answers where, in the order in which it counts, except for `fallback`.
    pub(super) routes: Vec<RouteFields<'a>>,
    /// Name of the service that answers where no other does, or `unclaimed`.
    pub(super) fallback: &'a str,
    /// Whether no service does.
    pub(super) unclaimed: bool,
    // Those of the context.
    pub(super) certificates: &'a str,
    pub(super) acme: &'a str,
    pub(super) stats_users: &'a str,
    /// Additional names with their values.
    #[serde(flatten)]
    pub(super) settings: &'a BTreeMap<String, String>,
}

/// The fields of a node; `host` and `ip` are those of the lab's template.
#[derive(Debug, Serialize)]
pub(super) struct NodeFields<'a> {
    pub(super) host: &'a str,
    pub(super) ip: Address,
    pub(super) port: Port,
    pub(super) weight: Weight,
    pub(super) drain: bool,
}

/// The fields of a service.
#[derive(Debug, Serialize)]
pub(super) struct ServiceFields<'a> {
    /// Name of its section.
    pub(super) name: &'a str,
    /// The hosts in its routes, separated by spaces; empty for all.
    pub(super) hosts: String,
    /// The paths in its routes, separated by spaces; empty for all.
    pub(super) paths: String,
    /// Path of its health check.
    pub(super) check: &'a str,
    /// Name of its session cookie; empty for none.
    pub(super) cookie: &'a str,
    pub(super) nodes: Vec<NodeFields<'a>>,
}

/// The fields of a route.
#[derive(Debug, Serialize)]
pub(super) struct RouteFields<'a> {
    /// Name of the service's section.
    pub(super) name: &'a str,
    /// Its host; empty for all.
    pub(super) host: String,
    /// The beginning of its path; empty for all.
    pub(super) path: String,
    /// Its condition in the syntax of HAProxy.
    pub(super) condition: String,
}

impl<'a> Data<'a> {
    pub(super) fn new(
        nodes: &[&'a Node],
        services: &Services<'a>,
        port: Port,
        context: &'a Context,
        settings: &'a BTreeMap<String, String>,
    ) -> Self {
        let mut places: BTreeMap<&Role, [BTreeSet<&str>; 2]> = BTreeMap::new();
        for (place, role) in &services.routes {
            let [hosts, paths] = places.entry(role).or_default();
            hosts.extend(place.host().map(Host::as_str));
            paths.extend(Some(place.path()).filter(|path| !path.is_empty()));
        }
        let words = |words: &BTreeSet<&str>| words.iter().copied().collect::<Vec<_>>().join(" ");
        let service = |service: &crate::service::Service<'a>| {
            let [hosts, paths] = places.get(service.role).map(|lists| lists.each_ref().map(words)).unwrap_or_default();
            ServiceFields {
                name: service.role.section(),
                hosts,
                paths,
                check: service.check.map_or(CHECK, UrlPath::as_str),
                cookie: match service.cookie {
                    None => COOKIE,
                    Some(Cookie::None) => "",
                    Some(Cookie::Named(name)) => name,
                },
                nodes: service.nodes.iter().map(|node| NodeFields::new(node, port)).collect(),
            }
        };
        let fallback = services.fallback();
        Self {
            addresses: nodes.iter().map(|node| NodeFields::new(node, port)).collect(),
            services: services.list.iter().map(service).collect(),
            routes: services.routes.iter().filter(|(place, _)| !place.is_default()).map(RouteFields::new).collect(),
            fallback: fallback.map_or(UNCLAIMED, Role::section),
            unclaimed: fallback.is_none(),
            certificates: &context.certificates,
            acme: &context.acme,
            stats_users: &context.stats_users,
            settings,
        }
    }
}

impl<'a> NodeFields<'a> {
    fn new(node: &'a Node, port: Port) -> Self {
        Self { host: node.name.as_str(), ip: node.address, port: node.port(port), weight: node.weight(), drain: node.tags.drain }
    }
}

impl<'a> RouteFields<'a> {
    fn new((place, role): (&Place, &&'a Role)) -> Self {
        let host = place.host().map_or_else(String::new, Host::to_string);
        Self { name: role.section(), host, path: place.path().to_owned(), condition: condition(place) }
    }
}

/// A place as the condition of a `use_backend` line (HAProxy 3.0 configuration manual, sections 7.1 and 7.3).
fn condition(place: &Place) -> String {
    let host = place.host().map(|host| match host.as_str().strip_prefix("*.") {
        None => format!("{{ req.hdr(host),host_only,lower -m str {host} }}"),
        // A backslash would have to be escaped.
        Some(rest) => format!("{{ req.hdr(host),host_only,lower -m reg ^[^.]+[.]{}$ }}", rest.replace('.', "[.]")),
    });
    // With a `/` added to the request's path, it begins with whole segments.
    let path = Some(place.path()).filter(|path| !path.is_empty()).map(|path| format!("{{ path,concat(/) -m beg {path}/ }}"));
    [host, path].into_iter().flatten().collect::<Vec<_>>().join(" ")
}
