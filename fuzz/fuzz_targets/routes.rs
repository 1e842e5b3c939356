//! The file of routes: any text is refused with a reason, or says which service answers where.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use lb_core::config::Config;
use lb_core::service::{Known, Role, Routes};
use lb_fuzz::{check_message, render_known};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let routes = match Routes::parse(text) {
        Ok(routes) => routes,
        Err((line, reason)) => {
            assert!((1..=text.lines().count()).contains(&line), "{line}");
            return check_message(&reason);
        }
    };
    let lines: Vec<String> = routes.iter().map(|(place, role)| format!("{place} {role}")).collect();
    assert_eq!(Routes::parse(&lines.join("\n")).as_ref(), Ok(&routes), "{lines:?}");
    let roles: BTreeSet<Role> = routes.iter().map(|(_, role)| role.clone()).collect();
    let has_fallback = routes.iter().any(|(place, _)| place.is_default());

    let rendered = render_known(&BTreeMap::new(), &Known { routes: Some(routes), ..Known::default() });
    assert_eq!(Config::parse(&rendered).irregular, None, "{rendered}");
    // The other sections of the image's template come after those of the services.
    let (of_services, _) = rendered.split_once("\nfrontend stats\n").expect("the image's template");
    let count = |begin: &str| of_services.lines().filter(|line| line.starts_with(begin)).count();
    assert_eq!(count("    use_backend "), lines.len() - usize::from(has_fallback), "{rendered}");
    assert_eq!(count("backend "), roles.len() + usize::from(!has_fallback), "{rendered}");
    assert_eq!(rendered.contains("    default_backend unclaimed\n"), !has_fallback, "{rendered}");
    for line in of_services.lines().filter(|line| line.starts_with("    use_backend ")) {
        assert!(line.chars().all(|c| c.is_ascii_alphanumeric() || " (){}[]^$+*,/._~-".contains(c)), "{line}");
    }
});
