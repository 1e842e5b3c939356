//! The hosts that get certificates.

use std::collections::BTreeSet;
use std::path::Path;

use lb_core::service::{Host, Place, Routes};

/// The hosts in `domains`, or else in the file of routes, and what is wrong with others. A tag of a member never counts: anyone in
/// the cluster could have certificates made, until the authority refuses more.
pub(crate) fn wanted(domains: Option<&str>, routes: Option<&Path>) -> (BTreeSet<Host>, BTreeSet<String>) {
    let (mut hosts, mut problems) = (BTreeSet::new(), BTreeSet::new());
    match (domains, routes.map(Routes::load)) {
        (Some(domains), _) => {
            for word in domains.split([' ', ',', '\t', '\n']).filter(|word| !word.is_empty()) {
                match word.parse::<Host>() {
                    Ok(host) => drop(hosts.insert(host)),
                    Err(error) => drop(problems.insert(format!("ACME_DOMAINS: {error}"))),
                }
            }
        }
        (None, Some(Ok(routes))) => hosts.extend(routes.iter().map(|(place, _)| place).filter_map(Place::host).cloned()),
        (None, Some(Err(error))) => drop(problems.insert(format!("{:#}", anyhow::Error::from(error)))),
        (None, None) => drop(problems.insert("no hosts: set ACME_DOMAINS, or ROUTES to a file of routes".to_owned())),
    }
    hosts.retain(|host: &Host| {
        if host.is_wildcard() {
            problems.insert(format!("no certificate for {host}: wildcards need DNS-01, which is not supported"));
        }
        !host.is_wildcard()
    });
    (hosts, problems)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn texts(found: (BTreeSet<Host>, BTreeSet<String>)) -> (Vec<String>, Vec<String>) {
        (found.0.iter().map(Host::to_string).collect(), found.1.into_iter().collect())
    }

    #[test]
    fn domains_come_before_routes() {
        let folder = tempfile::tempdir().unwrap();
        let routes = folder.path().join("routes");
        fs::write(&routes, "shop.example/api api\nshop.example shop\n*.b.example blog\n/ shop\na.example blog\n").unwrap();
        let wildcard = "no certificate for *.b.example: wildcards need DNS-01, which is not supported".to_owned();
        let of_routes = (vec!["a.example".to_owned(), "shop.example".to_owned()], vec![wildcard]);
        assert_eq!(texts(wanted(None, Some(&routes))), of_routes);
        assert_eq!(texts(wanted(Some("c.example, D.example\nc.example"), Some(&routes))).0, ["c.example", "d.example"]);
    }

    #[test]
    fn what_cannot_be_used_is_named_and_the_rest_goes_on() {
        let (hosts, problems) = texts(wanted(Some("shop.example:443 bücher.example good.example *.x.example"), None));
        assert_eq!(hosts, ["good.example"]);
        for reason in ["a port", "in its ASCII form", "need DNS-01"] {
            assert!(problems.iter().any(|problem| problem.contains(reason)), "{problems:?}");
        }
        assert!(texts(wanted(None, None)).1[0].starts_with("no hosts: set ACME_DOMAINS"));
        let folder = tempfile::tempdir().unwrap();
        assert!(texts(wanted(None, Some(&folder.path().join("none")))).1[0].starts_with("read routes "));
    }
}
