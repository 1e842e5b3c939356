//! Rendering the text of `haproxy.cfg` from a Handlebars template and the nodes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use handlebars::{Handlebars, RenderErrorReason, TemplateErrorReason};

use crate::node::{Node, Port};
use crate::os::escape::Quoted;
use crate::os::permissions::check_file;
use crate::os::read_file::read_text;
use crate::service::{Known, Services};

mod context;
mod data;
mod literal;
mod options;
mod partials;
mod users;

pub use context::Context;
use data::Data;
use literal::Literal;
pub use options::RenderOptions;

/// The names that every template can use, so that no setting can have one of them.
pub const NAMES: [&str; 8] = ["addresses", "services", "routes", "fallback", "unclaimed", "certificates", "acme", "stats_users"];

/// Why the template could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The template's file cannot be read.
    #[error("read template {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The template is not valid Handlebars.
    #[error("template {path}: {reason}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        reason: String,
    },
    /// The template uses an unknown name.
    #[error("template {path}: {reason}", path = path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        reason: String,
    },
    /// The result is blank, which is never a valid configuration.
    #[error("template {path} renders to nothing", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A template that was loaded from a file.
#[derive(Debug)]
pub struct Template {
    path: PathBuf,
    text: String,
    context: Context,
    /// Set if the template does not need the engine.
    literal: Option<Literal>,
}

impl Template {
    /// Reads a Handlebars template from a file. It is parsed when it is rendered.
    ///
    /// # Errors
    /// [`RenderError::Read`] if the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, RenderError> {
        let text = check_file(path)
            .and_then(|()| read_text(path))
            .map_err(|source| RenderError::Read { path: path.to_owned(), source })?;
        let literal = Literal::parse(&text);
        Ok(Self { path: path.to_owned(), text, context: Context::default(), literal })
    }

    /// The same template with what it knows besides nodes and services.
    #[must_use]
    pub fn with_context(self, context: Context) -> Self {
        Self { context, ..self }
    }

    /// Renders the template. It can use `{{#each addresses}}` with the fields `{{host}}`, `{{ip}}`, `{{port}}`,
    /// `{{weight}}` and `{{drain}}` of each node; `{{#each services}}` with `{{name}}`, `{{hosts}}`, `{{paths}}`,
    /// `{{check}}`, `{{cookie}}` and `{{#each nodes}}`; `{{#each routes}}` with `{{name}}`, `{{host}}`, `{{path}}` and
    /// `{{condition}}`; `{{fallback}}` and `{{unclaimed}}`; the texts of [`Context`]; and the names in `settings` at the top level. `nodes` are sorted by name. `port` is the default port; the default weight
    /// is 100, and that of a draining node is 0.
    ///
    /// # Errors
    /// [`RenderError::Parse`], [`RenderError::Data`] or [`RenderError::Empty`].
    pub fn render<'a>(
        &self,
        nodes: impl IntoIterator<Item = &'a Node>,
        known: &Known,
        port: Port,
        settings: &BTreeMap<String, String>,
    ) -> Result<String, RenderError> {
        let nodes: Vec<&Node> = nodes.into_iter().collect();
        let data = Data::new(&nodes, &Services::of(&nodes, known), port, &self.context, settings);
        let text = match &self.literal {
            Some(literal) if settings.is_empty() => literal.fill(&data),
            _ => {
                let failed = |reason| RenderError::Parse { path: self.path.clone(), reason };
                let engine = engine(&self.text).map_err(|error| failed(parse_reason(&error)))?;
                if let Some(name) = engine.get_template("").and_then(partials::circular) {
                    return Err(failed(format!("the partial {} includes itself", Quoted(&name))));
                }
                let failed = |reason| RenderError::Data { path: self.path.clone(), reason };
                engine.render("", &data).map_err(|error| failed(data_reason(&error)))?
            }
        };
        if text.trim().is_empty() {
            return Err(RenderError::Empty { path: self.path.clone() });
        }
        Ok(text)
    }
}

/// The template engine with the template `text` under an empty name.
fn engine(text: &str) -> Result<Handlebars<'static>, handlebars::TemplateError> {
    let mut handlebars = Handlebars::new();
    // A misspelt name must be an error, not an empty word in the configuration.
    handlebars.set_strict_mode(true);
    handlebars.register_escape_fn(handlebars::no_escape);
    handlebars.register_template_string("", text)?;
    Ok(handlebars)
}

/// The message in one line; the library prints several, with an excerpt of the template.
fn parse_reason(error: &handlebars::TemplateError) -> String {
    let place = error.pos().map_or(String::new(), |(line, column)| format!("line {line}, column {column}: "));
    match error.reason() {
        // The library lists the rules of its grammar, which does not help.
        TemplateErrorReason::InvalidSyntax(_) => format!("{place}not valid Handlebars: is a }}}} or a {{{{/each}}}} missing?"),
        reason => format!("{place}{}", reason.to_string().replace('\n', " ")),
    }
}

fn data_reason(error: &handlebars::RenderError) -> String {
    let place = match (error.line_no, error.column_no) {
        (Some(line), Some(column)) => format!("line {line}, column {column}: "),
        _ => String::new(),
    };
    match error.reason() {
        RenderErrorReason::MissingVariable(Some(name)) => format!("{place}unknown name {}", Quoted(name)),
        reason => format!("{place}{reason}"),
    }
}
