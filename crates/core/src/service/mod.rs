//! Services: the nodes of one role, and where they answer.
//!
//! Each node claims places by its tags `host` and `path`. The services and routes follow from the nodes of the registry, what
//! it knows of services whose last node is gone, and the file of routes, if there is one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::node::{Node, Tags};

mod cookie;
mod place;
mod role;
mod routes;

pub use cookie::Cookie;
pub use place::{Host, Hosts, Place, UrlPath};
pub use role::{Role, Roles};
pub use routes::Routes;

/// Name of the section of `haproxy.cfg` that answers where no service does.
pub const UNCLAIMED: &str = "unclaimed";

/// What is known about services, besides their nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The last node of each service that has none any more. The service goes on answering, with an error, where it did.
    pub idle: BTreeMap<Role, Node>,
    /// The routes of a file; then tags do not count.
    pub routes: Option<Routes>,
}

/// The nodes of one role.
#[derive(Debug, PartialEq, Eq)]
pub struct Service<'a> {
    /// Their role.
    pub role: &'a Role,
    /// The nodes, by name; none if the last one is gone.
    pub nodes: Vec<&'a Node>,
    /// The path of the health check that most of them ask for; `None` is the template's.
    pub check: Option<&'a UrlPath>,
    /// The session cookie that most of them ask for; `None` is the template's.
    pub cookie: Option<&'a Cookie>,
}

/// A service claims a place that another one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The place.
    pub place: Place,
    /// The service that answers there, the first by name.
    pub winner: Role,
    /// The service that does not.
    pub loser: Role,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, winner, loser } = self;
        write!(f, "service {loser} claims {place}, which {winner} has")
    }
}

/// All services, and which one answers where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Services<'a> {
    /// The services, by role.
    pub list: Vec<Service<'a>>,
    /// Which service answers where, in the order in which places count. That of the default service comes last.
    pub routes: BTreeMap<Place, &'a Role>,
    /// Claims that are void.
    pub conflicts: Vec<Conflict>,
}

impl<'a> Services<'a> {
    /// The services of these nodes, which are sorted by name. As long as there are no others, the default service answers
    /// everywhere, whatever its nodes claim, and it is there without a node.
    #[must_use]
    pub fn of(nodes: &[&'a Node], known: &'a Known) -> Self {
        let mut groups: BTreeMap<&Role, Vec<&Node>> = BTreeMap::new();
        // Nearly always, all nodes are of one service.
        for group in nodes.chunk_by(|a, b| a.role == b.role) {
            if let Some(first) = group.first() {
                groups.entry(&first.role).or_default().extend(group);
            }
        }
        let is_alone = groups.keys().copied().chain(known.idle.keys()).all(Role::is_default);
        let mut services = Self::default();
        match &known.routes {
            Some(routes) => services.routes = routes.iter().map(|(place, role)| (place.clone(), role)).collect(),
            None if is_alone => drop(services.routes.insert(Place::default(), Role::default_ref())),
            None => services.claim(&groups, &known.idle),
        }
        for role in services.routes.values().copied() {
            groups.entry(role).or_default();
        }
        services.list = groups
            .into_iter()
            .map(|(role, nodes)| Service::of(role, nodes, known.idle.get(role).map(|node| &node.tags)))
            .collect();
        services
    }

    /// Assigns each place to the first service by name that claims it; those without nodes come last.
    fn claim(&mut self, groups: &BTreeMap<&'a Role, Vec<&'a Node>>, idle: &'a BTreeMap<Role, Node>) {
        for (role, nodes) in groups {
            let places: BTreeSet<Place> = nodes.iter().flat_map(|node| places(&node.tags)).collect();
            for place in places {
                match self.routes.entry(place) {
                    Entry::Vacant(entry) => drop(entry.insert(role)),
                    Entry::Occupied(entry) => {
                        let (place, winner) = (entry.key().clone(), (*entry.get()).clone());
                        self.conflicts.push(Conflict { place, winner, loser: (*role).clone() });
                    }
                }
            }
        }
        for (role, node) in idle.iter().filter(|(role, _)| !groups.contains_key(role)) {
            for place in places(&node.tags) {
                self.routes.entry(place).or_insert(role);
            }
        }
    }

    /// Which service answers where no other does, if any.
    #[must_use]
    pub fn fallback(&self) -> Option<&'a Role> {
        self.routes.get(&Place::default()).copied()
    }
}

impl<'a> Service<'a> {
    fn of(role: &'a Role, nodes: Vec<&'a Node>, idle: Option<&'a Tags>) -> Self {
        let tags = || nodes.iter().map(|node| &node.tags).chain(idle.filter(|_| nodes.is_empty()));
        let (check, cookie) =
            (most_common(tags().map(|tags| tags.check.as_ref())), most_common(tags().map(|tags| tags.cookie.as_ref())));
        Self { role, nodes, check, cookie }
    }
}

/// The places that a node claims: each of its hosts with its path.
fn places(tags: &Tags) -> impl Iterator<Item = Place> + '_ {
    let all = tags.host.is_none().then_some(None);
    let hosts = tags.host.iter().flat_map(Hosts::iter).map(Some).chain(all);
    hosts.map(|host| Place::new(host, tags.path.as_ref()))
}

/// What most nodes say, so that one of them cannot change it for all; of two that are equal, the larger.
fn most_common<'a, T: Ord>(values: impl Iterator<Item = Option<&'a T>> + Clone) -> Option<&'a T> {
    if values.clone().all(|value| value.is_none()) {
        return None;
    }
    let mut counts: BTreeMap<Option<&T>, usize> = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).and_then(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The services of these lines of node files, as `role: names` and `place -> role`.
    fn services(lines: &[&str], known: &Known) -> (Vec<String>, Vec<String>, Vec<String>) {
        let nodes: Vec<Node> = lines.iter().map(|line| line.parse().unwrap()).collect();
        let nodes: Vec<_> = nodes.iter().collect();
        let services = Services::of(&nodes, known);
        let names = |service: &Service| service.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" ");
        (
            services.list.iter().map(|service| format!("{}: {}", service.role, names(service))).collect(),
            services.routes.iter().map(|(place, role)| format!("{place} -> {role}")).collect(),
            services.conflicts.iter().map(ToString::to_string).collect(),
        )
    }

    fn idle(line: &str) -> Known {
        let node: Node = line.parse().unwrap();
        Known { idle: BTreeMap::from([(node.role.clone(), node)]), routes: None }
    }

    #[test]
    fn the_only_service_answers_everywhere() {
        for lines in [&[][..], &["s1 1.1.1.1", "s2 1.1.1.2"], &["s1 1.1.1.1 host=a.example path=/x"]] {
            let (list, routes, conflicts) = services(lines, &Known::default());
            assert_eq!((list.len(), routes, conflicts.len()), (1, vec!["/ -> backend".to_owned()], 0), "{lines:?}");
        }
    }

    #[test]
    fn each_service_answers_where_its_nodes_say() {
        let lines = [
            "a1 1.1.1.1 role=api path=/api host=shop.example",
            "a2 1.1.1.2 role=api path=/api host=shop.example+www.shop.example",
            "s1 1.1.1.3 role=shop host=shop.example",
            "x1 1.1.1.4",
        ];
        let (list, routes, conflicts) = services(&lines, &Known::default());
        assert_eq!(list, ["api: a1 a2", "backend: x1", "shop: s1"]);
        assert_eq!(routes, ["shop.example/api -> api", "shop.example -> shop", "www.shop.example/api -> api", "/ -> backend"]);
        assert!(conflicts.is_empty());
        // No one has the rest.
        let (_, routes, _) = services(&lines[..3], &Known::default());
        assert_eq!(routes.len(), 3);
    }

    #[test]
    fn of_two_services_in_one_place_the_first_by_name_has_it() {
        let lines = [
            "a1 1.1.1.1 role=web host=x.example",
            "b1 1.1.1.2 role=blog host=x.example+y.example",
            "c1 1.1.1.3 role=wiki",
            "d1 1.1.1.4",
        ];
        let (_, routes, conflicts) = services(&lines, &Known::default());
        assert_eq!(routes, ["x.example -> blog", "y.example -> blog", "/ -> backend"]);
        assert_eq!(conflicts, ["service web claims x.example, which blog has", "service wiki claims /, which backend has"]);
    }

    #[test]
    fn a_service_without_nodes_stays_where_it_was_until_another_comes_there() {
        let known = idle("s1 1.1.1.1 role=api host=a.example cookie=none");
        let (list, routes, _) = services(&["x1 1.1.1.2"], &known);
        assert_eq!(
            (list, routes),
            (vec!["api: ".to_owned(), "backend: x1".to_owned()], vec!["a.example -> api".to_owned(), "/ -> backend".to_owned()])
        );
        let (list, routes, conflicts) = services(&["x1 1.1.1.2 role=web host=a.example"], &known);
        assert_eq!((list.len(), routes, conflicts.len()), (1, vec!["a.example -> web".to_owned()], 0));
    }

    #[test]
    fn with_a_file_of_routes_tags_do_not_count() {
        let routes = Routes::parse("a.example api\n/ shop\n").unwrap();
        let known = Known { routes: Some(routes), ..idle("s9 1.1.1.9 role=old host=old.example") };
        let (list, routes, conflicts) =
            services(&["s1 1.1.1.1 role=shop host=a.example", "s2 1.1.1.2 role=evil host=a.example"], &known);
        assert_eq!(list, ["api: ", "evil: s2", "shop: s1"]);
        assert_eq!(routes, ["a.example -> api", "/ -> shop"]);
        assert!(conflicts.is_empty());
    }

    #[test]
    fn what_most_nodes_ask_for_counts() {
        let asked = |tags: &[&str]| {
            let nodes: Vec<Node> =
                tags.iter().enumerate().map(|(n, tags)| format!("s{n} 1.1.1.1{tags}").parse().unwrap()).collect();
            let (known, nodes) = (Known::default(), nodes.iter().collect::<Vec<_>>());
            let services = Services::of(&nodes, &known);
            let service = &services.list[0];
            (service.check.map(ToString::to_string), service.cookie.map(ToString::to_string))
        };
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(asked(&["", "", " check=/x cookie=none"]), (None, None));
        assert_eq!(asked(&["", " check=/x", " check=/x cookie=SID"]), (is("/x"), None));
        assert_eq!(asked(&["", " check=/x cookie=none"]), (is("/x"), is("none")));
    }
}
