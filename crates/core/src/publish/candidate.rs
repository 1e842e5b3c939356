//! Registry and template, and the text that they make; without the nodes because of which HAProxy would refuse the whole.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::PublishError;
use crate::config::template::RenderOptions;
use crate::config::template::Template;
use crate::haproxy::HaproxyError;
use crate::node::{Node, NodeName, Port};
use crate::registry::{Registry, RegistryError};

/// How long the search for offenders may take. Of 1,000 nodes it asks HAProxy some 12 times, of 30 ms each.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so many offenders, with not one good node among them, it is the template's fault.
const ENOUGH: usize = 3;

/// Registry and template, read once for as many texts as are needed.
#[derive(Debug)]
pub struct Candidate {
    registry: Registry,
    template: Template,
    port: Port,
    settings: BTreeMap<String, String>,
    /// Nodes that are not in the text because HAProxy would refuse it with them, with its words.
    excluded: BTreeMap<NodeName, String>,
}

impl Candidate {
    /// Reads registry and template; `settings` are further names for the template.
    ///
    /// # Errors
    /// [`PublishError::Registry`] and [`PublishError::Render`].
    pub fn read(options: &RenderOptions, settings: BTreeMap<String, String>) -> Result<Self, PublishError> {
        let registry = match Registry::read(&options.nodes_dir) {
            // A template that is filled in by hand needs no nodes.
            Err(RegistryError::List { source, .. }) if source.kind() == io::ErrorKind::NotFound && !settings.is_empty() => {
                Registry::empty(&options.nodes_dir)
            }
            result => result?,
        };
        Self::of(registry, options, settings)
    }

    /// Reads the template for a registry that was read.
    pub(super) fn of(
        registry: Registry,
        options: &RenderOptions,
        settings: BTreeMap<String, String>,
    ) -> Result<Self, PublishError> {
        let template = Template::load(&options.template)?;
        Ok(Self { registry, template, port: options.port, settings, excluded: BTreeMap::new() })
    }

    /// The text of the configuration.
    ///
    /// # Errors
    /// [`PublishError::Render`].
    pub fn text(&self) -> Result<String, PublishError> {
        self.text_of(self.registry.nodes().values().filter(|node| !self.excluded.contains_key(&node.name)))
    }

    /// Registry files that are no node, with the reasons.
    #[must_use]
    pub fn skipped(&self) -> &[(PathBuf, String)] {
        self.registry.skipped()
    }

    /// Takes it apart: [`Self::skipped`], and the nodes that were left out, with HAProxy's words.
    #[must_use]
    pub(super) fn into_skipped(self) -> (Vec<(PathBuf, String)>, BTreeMap<NodeName, String>) {
        (self.registry.skipped().to_vec(), self.excluded)
    }

    /// Finds the nodes because of which HAProxy refuses the text, in its words `refused`, and leaves them out. Says
    /// whether that helps: it does not when the template itself is no good. `refusal` asks HAProxy for its words about
    /// a text, none if that is good.
    ///
    /// # Errors
    /// Those of `refusal`, and that the search takes too long; nothing is left out then.
    pub(super) fn leave_out_offenders(
        &mut self,
        refused: &str,
        mut refusal: impl FnMut(&str) -> Result<Option<String>, PublishError>,
    ) -> Result<bool, PublishError> {
        let deadline = Instant::now() + PATIENCE;
        let mut search = Search {
            good: Vec::new(),
            offenders: BTreeMap::new(),
            refusal: |nodes: &[&Node]| {
                if Instant::now() > deadline {
                    return Err(HaproxyError::Rejected(refused.to_owned()).into());
                }
                refusal(&self.text_of(nodes.iter().copied())?)
            },
        };
        if (search.refusal)(&[])?.is_some() {
            return Ok(false);
        }
        search.narrow(&self.registry.nodes().values().collect::<Vec<_>>(), refused.to_owned())?;
        let found = !search.good.is_empty();
        if found {
            self.excluded = search.offenders;
        }
        Ok(found)
    }

    fn text_of<'a>(&self, nodes: impl IntoIterator<Item = &'a Node>) -> Result<String, PublishError> {
        Ok(self.template.render(nodes, self.port, &self.settings)?)
    }
}

/// A search for offenders.
struct Search<'a, F> {
    /// Nodes that are good together.
    good: Vec<&'a Node>,
    offenders: BTreeMap<NodeName, String>,
    refusal: F,
}

impl<'a, F: FnMut(&[&Node]) -> Result<Option<String>, PublishError>> Search<'a, F> {
    /// Tells the good from the offenders among `nodes`, which are refused together with those that are good, in the words
    /// `refused`.
    fn narrow(&mut self, nodes: &[&'a Node], refused: String) -> Result<(), PublishError> {
        if self.good.is_empty() && self.offenders.len() >= ENOUGH {
            return Err(HaproxyError::Rejected(refused).into());
        }
        if nodes.len() < 2 {
            self.offenders.extend(nodes.iter().map(|node| (node.name.clone(), refused.clone())));
            return Ok(());
        }
        let (first, second) = nodes.split_at(nodes.len() / 2);
        if let Some(words) = self.try_all(first)? {
            self.narrow(first, words)?;
            return self.try_all(second)?.map_or(Ok(()), |words| self.narrow(second, words));
        }
        self.narrow(second, refused)
    }

    /// Takes the nodes for good, unless they are refused together with those that are.
    fn try_all(&mut self, nodes: &[&'a Node]) -> Result<Option<String>, PublishError> {
        let before = self.good.len();
        self.good.extend(nodes);
        let refused = (self.refusal)(&self.good)?;
        if refused.is_some() {
            self.good.truncate(before);
        }
        Ok(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is left out of `count` nodes if these are `bad` and the two of a `pair` do not go together, and after how many
    /// questions; none if it is given up.
    fn excluded(count: usize, bad: &[usize], pair: Option<[usize; 2]>) -> Option<(Vec<usize>, usize)> {
        let nodes: Vec<Node> = (0..count).map(|number| format!("s{number} 10.0.0.1").parse().unwrap()).collect();
        let number = |node: &Node| node.name.as_str().trim_start_matches('s').parse::<usize>().unwrap();
        let mut questions = 0;
        let refusal = |nodes: &[&Node]| {
            questions += 1;
            let numbers: Vec<_> = nodes.iter().map(|node| number(node)).collect();
            let is_there = |number: &usize| numbers.contains(number);
            let refused = bad.iter().any(is_there) || pair.is_some_and(|pair| pair.iter().all(is_there));
            Ok(refused.then(|| "no".to_owned()))
        };
        let mut search = Search { good: Vec::new(), offenders: BTreeMap::new(), refusal };
        search.narrow(&nodes.iter().collect::<Vec<_>>(), "no".to_owned()).ok()?;
        let mut offenders: Vec<_> = search.offenders.keys().map(|name| name.as_str()[1..].parse().unwrap()).collect();
        offenders.sort_unstable();
        assert_eq!(search.good.len() + offenders.len(), count);
        Some((offenders, questions))
    }

    #[test]
    fn offenders_are_found_wherever_they_are() {
        let found = |count, bad: &[usize], pair| excluded(count, bad, pair).unwrap().0;
        assert_eq!(found(1, &[0], None), [0]);
        for bad in 0..9 {
            assert_eq!(found(9, &[bad], None), [bad]);
        }
        assert_eq!(found(9, &[0, 4, 8], None), [0, 4, 8]);
        assert_eq!(found(9, &[], Some([2, 7])), [7]);
    }

    #[test]
    fn one_of_a_thousand_takes_few_questions() {
        for bad in [0, 500, 999] {
            let (offenders, questions) = excluded(1000, &[bad], None).unwrap();
            assert_eq!(offenders, [bad]);
            assert!(questions <= 20, "{questions}");
        }
    }

    #[test]
    fn when_every_node_is_refused_the_search_ends_soon() {
        assert!(excluded(1000, &(0..1000).collect::<Vec<_>>(), None).is_none());
    }
}
