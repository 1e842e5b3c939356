//! What is accepted is printed as a text that reads back as the same; nothing else is accepted.

use std::net::IpAddr;
use std::path::Path;

use lb_core::members::admission::Admission;
use lb_core::members::event::{Line, parse_gone, parse_present, read_lines};
use lb_core::node::{Address, Node, NodeName};
use lb_core::os::escape::Quoted;
use lb_core::service::{Host, Hosts, Place, Role, Routes, UrlPath};
use proptest::prelude::*;

use super::any::{host_text, ip, name_text, node, url_path};

/// Tags as Serf has them: those of the node, with others between them, in any order.
fn tags(node: &Node) -> impl Strategy<Value = String> + use<> {
    let own =
        node.to_string().split(' ').skip(2).filter(|pair| !pair.starts_with("role=")).map(str::to_owned).collect::<Vec<_>>();
    let others = proptest::collection::vec("(role|x|Port|weights)=[a-z0-9 .]{0,8}", 0..3);
    others.prop_flat_map(move |others| Just([own.clone(), others].concat()).prop_shuffle()).prop_map(|tags| tags.join(","))
}

proptest! {
    #[test]
    fn a_node_s_line_reads_back_as_the_same_node(node in node()) {
        let line = node.to_string();
        prop_assert_eq!(line.parse::<Node>(), Ok(node.clone()));
        prop_assert_eq!(format!("{line}\n").parse::<Node>(), Ok(node));
    }

    #[test]
    fn an_event_line_of_a_node_reads_as_that_node((node, tags) in node().prop_flat_map(|node| (Just(node.clone()), tags(&node)))) {
        let role = node.role.as_str();
        let line = format!("{}\t{}\t{role}\t{tags}", node.name, node.address);
        for roles in ["*", &format!("x y {role}")] {
            prop_assert_eq!(parse_present(&line, &Admission::anywhere(roles)), Ok(Line::Node(node.clone())));
        }
        // The only role is the default service.
        let only = Node { role: Role::default(), ..node.clone() };
        prop_assert_eq!(parse_present(&line, &Admission::anywhere(role)), Ok(Line::Node(only)));
        prop_assert_eq!(parse_gone(&line), Ok(node.name.clone()));
        let other = Line::Other { name: node.name.to_string(), role: role.to_owned() };
        prop_assert_eq!(parse_present(&line, &Admission::anywhere("balancer")), Ok(other));
    }

    #[test]
    fn an_event_line_typed_by_hand_reads_as_that_node(node in node(), gap in " {1,3}") {
        let line = node.to_string().replace(' ', &gap).replacen(&gap, " ", 1);
        let line = line.replacen(&node.address.to_string(), &format!("{}{gap}{}", node.address, node.role), 1);
        prop_assert_eq!(parse_present(&line, &Admission::anywhere("*")), Ok(Line::Node(node)), "{}", line);
    }

    #[test]
    fn a_name_is_kept_as_it_is_and_is_one_file_in_its_folder(text in name_text()) {
        let name: NodeName = text.parse().unwrap();
        prop_assert_eq!(name.as_str(), &text);
        prop_assert_eq!(name.to_string(), text);
        let path = Path::new("/nodes").join(name.as_str());
        prop_assert_eq!(path.parent(), Some(Path::new("/nodes")));
        prop_assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(name.as_str()));
    }

    #[test]
    fn a_text_that_is_accepted_as_name_has_safe_characters_only(text in "[ -~é\n\t\0]{0,3}[A-Za-z._-]{0,127}.?") {
        let safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let safe = (1..=128).contains(&text.len()) && text.chars().all(safe) && !text.starts_with(['.', '-']);
        prop_assert_eq!(text.parse::<NodeName>().is_ok(), safe);
    }

    #[test]
    fn a_role_is_a_name_that_no_other_section_has(text in prop_oneof![name_text(), "[ -~]{0,12}"]) {
        if let Ok(role) = text.parse::<Role>() {
            prop_assert_eq!(role.as_str(), &text);
            prop_assert!(text.parse::<NodeName>().is_ok());
            prop_assert_ne!(role.section(), "backend");
        }
    }

    #[test]
    fn a_place_reads_back_as_it_is_printed(host in host_text(), path in url_path()) {
        let host: Host = host.parse().unwrap();
        for place in [Place::new(Some(&host), Some(&path)), Place::new(Some(&host), None), Place::new(None, Some(&path))] {
            prop_assert_eq!(place.to_string().parse::<Place>(), Ok(place.clone()));
            let line = format!("{place} shop");
            let (routes, shop) = (Routes::parse(&line).unwrap(), "shop".parse::<Role>().unwrap());
            prop_assert_eq!(routes.iter().next(), Some((&place, &shop)));
        }
    }

    #[test]
    fn a_text_that_is_accepted_as_host_or_path_has_safe_characters_only(text in "[ -~é\t\0]{0,6}|[*./a-zA-Z%#:+ _-]{0,300}") {
        let safe = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c));
        if let Ok(hosts) = text.parse::<Hosts>() {
            for host in hosts.iter() {
                let name = host.as_str().strip_prefix("*.").unwrap_or(host.as_str());
                prop_assert!(safe(name, "-_.") && (1..=253).contains(&host.as_str().len()), "{}", host);
            }
            prop_assert_eq!(hosts.to_string().parse(), Ok(hosts));
        }
        if let Ok(path) = text.parse::<UrlPath>() {
            prop_assert!(safe(&path.as_str().to_ascii_lowercase(), "-._~/") && path.as_str().starts_with('/'), "{}", path);
            prop_assert!(!path.as_str().contains("//") && !path.as_str().split('/').any(|segment| segment == ".."), "{}", path);
        }
    }

    #[test]
    fn an_address_is_kept_as_it_is(ip in ip()) {
        let address = ip.to_string().parse::<Address>();
        let plain = ip.to_canonical();
        let is_ours = !plain.is_unspecified() && !plain.is_multicast() && plain != IpAddr::from([255; 4]);
        prop_assert_eq!(address.is_ok(), is_ours, "{:?}", address);
        prop_assert!(address.is_err() || address.clone().is_ok_and(|address| address.ip() == ip && address.to_string() == ip.to_string()));
    }

    #[test]
    fn lines_read_back_as_they_were_written(lines in proptest::collection::vec("[^\r\n]{0,40}", 0..20), end in "\r?\n") {
        let text: String = lines.iter().map(|line| format!("{line}{end}")).collect();
        let mut read = Vec::new();
        read_lines(text.as_bytes(), |number, line| read.push((number, line.map(str::to_owned)))).unwrap();
        let numbered = (1..).zip(lines).filter(|(_, line)| !line.trim().is_empty()).map(|(number, line)| (number, Ok(line)));
        prop_assert_eq!(read, numbered.collect::<Vec<_>>());
    }

    #[test]
    fn what_is_quoted_can_be_printed_and_told_apart(a in "\\PC{0,20}|[\0-\u{a0}]{0,20}", b in "\\PC{0,20}|[\0-\u{a0}]{0,20}") {
        let quoted = [Quoted(&a).to_string(), Quoted(&b).to_string()];
        prop_assert!(quoted.iter().all(|text| text.chars().all(|c| (' '..='~').contains(&c))), "{:?}", quoted);
        prop_assert_eq!(quoted[0] == quoted[1], a == b);
    }
}
