//! The candidate configuration, rendered from registry and template. Nodes that would make HAProxy reject it are excluded.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{PublishError, PublishOptions};
use crate::config::template::{Context, RenderOptions, Template};
use crate::haproxy::HaproxyError;
use crate::node::{Node, NodeName, Port};
use crate::os::list_file::ListError;
use crate::registry::{Registry, RegistryError};
use crate::service::{Conflict, Known, Routes, Services};

/// Time limit for the search for offenders. For 1,000 nodes it runs some 12 checks of 30 ms each.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Give up after this many offenders without a single good node: the template is to blame.
const MAX_OFFENDERS: usize = 3;

/// Registry, template and routes, read once, from which texts are rendered.
#[derive(Debug)]
pub struct Candidate {
    registry: Registry,
    known: Known,
    template: Template,
    port: Port,
    settings: BTreeMap<String, String>,
    /// Nodes that are not in the text because HAProxy would reject it, with HAProxy's message.
    excluded: BTreeMap<NodeName, String>,
}

impl Candidate {
    /// Reads registry, template and routes; `settings` are additional names for the template.
    ///
    /// # Errors
    /// [`PublishError::Registry`], [`PublishError::List`] or [`PublishError::Render`].
    pub fn read(options: &PublishOptions, settings: BTreeMap<String, String>) -> Result<Self, PublishError> {
        let nodes_dir = &options.render.nodes_dir;
        let registry = match Registry::read(nodes_dir) {
            // A template rendered by hand with settings does not need nodes.
            Err(RegistryError::List { source, .. }) if source.kind() == io::ErrorKind::NotFound && !settings.is_empty() => {
                Registry::empty(nodes_dir)
            }
            result => result?,
        };
        Self::of(registry, options, settings)
    }

    /// Reads template and routes for a registry that has already been read.
    pub(super) fn of(
        registry: Registry,
        options: &PublishOptions,
        settings: BTreeMap<String, String>,
    ) -> Result<Self, PublishError> {
        let context = Context::load(&options.render, &options.process.master_socket)?;
        let template = Template::load(&options.render.template)?.with_context(context);
        let known = known(&registry, &options.render)?;
        Ok(Self { registry, known, template, port: options.render.port, settings, excluded: BTreeMap::new() })
    }

    /// Renders the text of the configuration.
    ///
    /// # Errors
    /// [`PublishError::Render`].
    pub fn text(&self) -> Result<String, PublishError> {
        self.text_of(self.registry.nodes().values().filter(|node| !self.excluded.contains_key(&node.name)))
    }

    /// Registry files that were skipped, with the reasons.
    #[must_use]
    pub fn skipped(&self) -> &[(PathBuf, String)] {
        self.registry.skipped()
    }

    /// Claims of services that are void.
    #[must_use]
    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let nodes: Vec<_> = self.registry.nodes().values().collect();
        Services::of(&nodes, &self.known).conflicts
    }

    /// Returns the skipped files, and the excluded nodes with HAProxy's messages.
    #[must_use]
    pub(super) fn into_omitted(self) -> (Vec<(PathBuf, String)>, BTreeMap<NodeName, String>) {
        (self.registry.skipped().to_vec(), self.excluded)
    }

    /// Finds the nodes that make HAProxy reject the text, and excludes them. `reason` is HAProxy's message about the text, and
    /// `check` asks for the one about another text, `None` if that is valid. Returns whether it helped; it does not if the
    /// template itself is invalid.
    ///
    /// # Errors
    /// Those of `check`, and [`HaproxyError::Rejected`] if the search takes too long; then nothing is excluded.
    pub(super) fn exclude_offenders(
        &mut self,
        reason: &str,
        mut check: impl FnMut(&str) -> Result<Option<String>, PublishError>,
    ) -> Result<bool, PublishError> {
        let deadline = Instant::now() + SEARCH_TIMEOUT;
        let mut search = Search {
            good: Vec::new(),
            offenders: BTreeMap::new(),
            check: |nodes: &[&Node]| {
                if Instant::now() > deadline {
                    return Err(HaproxyError::Rejected(reason.to_owned()).into());
                }
                check(&self.text_of(nodes.iter().copied())?)
            },
        };
        if (search.check)(&[])?.is_some() {
            return Ok(false);
        }
        search.narrow(&self.registry.nodes().values().collect::<Vec<_>>(), reason.to_owned())?;
        let found = !search.good.is_empty();
        if found {
            self.excluded = search.offenders;
        }
        Ok(found)
    }

    fn text_of<'a>(&self, nodes: impl IntoIterator<Item = &'a Node>) -> Result<String, PublishError> {
        Ok(self.template.render(nodes, &self.known, self.port, &self.settings)?)
    }
}

/// What registry and options say about services, besides their nodes.
///
/// # Errors
/// [`ListError`] if the file of routes cannot be used.
pub fn known(registry: &Registry, options: &RenderOptions) -> Result<Known, ListError> {
    let routes = options.routes_file.as_deref().map(Routes::load).transpose()?;
    Ok(Known { idle: registry.idle().clone(), routes })
}

/// A search for offenders.
struct Search<'a, F> {
    /// Nodes that are valid together.
    good: Vec<&'a Node>,
    offenders: BTreeMap<NodeName, String>,
    check: F,
}

impl<'a, F: FnMut(&[&Node]) -> Result<Option<String>, PublishError>> Search<'a, F> {
    /// Separates good nodes from offenders among `nodes`, which HAProxy rejects together with the good ones for `reason`.
    fn narrow(&mut self, nodes: &[&'a Node], reason: String) -> Result<(), PublishError> {
        if self.good.is_empty() && self.offenders.len() >= MAX_OFFENDERS {
            return Err(HaproxyError::Rejected(reason).into());
        }
        if nodes.len() < 2 {
            self.offenders.extend(nodes.iter().map(|node| (node.name.clone(), reason.clone())));
            return Ok(());
        }
        let (first, second) = nodes.split_at(nodes.len() / 2);
        if let Some(reason) = self.try_all(first)? {
            self.narrow(first, reason)?;
            return self.try_all(second)?.map_or(Ok(()), |reason| self.narrow(second, reason));
        }
        self.narrow(second, reason)
    }

    /// Adds the nodes to the good ones, unless HAProxy rejects them together. Returns its message then.
    fn try_all(&mut self, nodes: &[&'a Node]) -> Result<Option<String>, PublishError> {
        let before = self.good.len();
        self.good.extend(nodes);
        let reason = (self.check)(&self.good)?;
        if reason.is_some() {
            self.good.truncate(before);
        }
        Ok(reason)
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
        let mut search = Search { good: Vec::new(), offenders: BTreeMap::new(), check: refusal };
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
