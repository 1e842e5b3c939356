//! The file that says which service answers where.

use std::collections::BTreeMap;
use std::path::Path;

use crate::os::escape::Quoted;
use crate::os::list_file::{ListError, entries, load};
use crate::service::{Place, Role};

/// Which service answers where, as a person has written it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(BTreeMap<Place, Role>);

impl Routes {
    /// Reads a file with one route a line: a place and a role, such as `shop.example/api api`. Blank lines and those that
    /// begin with `#` are ignored.
    ///
    /// # Errors
    /// [`ListError`] if the file cannot be read, or a line is not a route, or one for a place that an earlier line has.
    pub fn load(path: &Path) -> Result<Self, ListError> {
        load("routes", path, Self::parse)
    }

    /// Parses the text of the file.
    ///
    /// # Errors
    /// The number of the first line that is not a route, and the reason.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut routes = BTreeMap::new();
        for (number, line) in entries(text) {
            let failed = |reason: String| (number, reason);
            let mut words = line.split_whitespace();
            let (Some(place), Some(role), None) = (words.next(), words.next(), words.next()) else {
                return Err(failed(format!("{} is not '<host>[/<path>] <role>'", Quoted(line))));
            };
            let place: Place = place.parse().map_err(|error: crate::node::NodeError| failed(error.to_string()))?;
            let role: Role = role.parse().map_err(|error: crate::node::NodeError| failed(error.to_string()))?;
            if routes.contains_key(&place) {
                return Err(failed(format!("{place} is given twice")));
            }
            routes.insert(place, role);
        }
        Ok(Self(routes))
    }

    /// The routes, in the order in which they count.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, &Role)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_has_one_route_a_line() {
        let text = "# who answers what\n\n  shop.example/api   api\n/ shop\r\nshop.example shop\n*.example/x backend";
        let routes = Routes::parse(text).unwrap();
        let lines: Vec<String> = routes.iter().map(|(place, role)| format!("{place} {role}")).collect();
        assert_eq!(lines, ["shop.example/api api", "shop.example shop", "*.example/x backend", "/ shop"]);
        assert_eq!(Routes::parse(&lines.join("\n")), Ok(routes));
        assert_eq!(Routes::parse(""), Ok(Routes::default()));
    }

    #[test]
    fn a_line_that_is_no_route_is_named_with_its_reason() {
        for (bad, line, reason) in [
            ("a.example shop\nshop", 2, "'shop' is not '<host>[/<path>] <role>'"),
            ("shop.example shop api", 1, "is not '<host>"),
            ("shop.example:80 shop", 1, "a port"),
            ("shop.example/.. shop", 1, "a segment"),
            ("\nshop.example stats", 2, "a section of haproxy.cfg"),
            ("a.example shop\nA.example/ api", 2, "a.example is given twice"),
        ] {
            let (number, text) = Routes::parse(bad).unwrap_err();
            assert!(number == line && text.contains(reason), "{bad:?}: {number} {text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("routes");
        assert!(Routes::load(&path).unwrap_err().to_string().starts_with("read routes /"));
        fs::write(&path, "x\n").unwrap();
        assert!(Routes::load(&path).unwrap_err().to_string().contains("routes: line 1: 'x' is not"));
        fs::write(&path, "/ shop\n").unwrap();
        assert_eq!(Routes::load(&path).unwrap().iter().count(), 1);
    }
}
