//! Options for publishing.

use clap::Args;

use crate::config::template::RenderOptions;
use crate::haproxy::ProcessOptions;

/// Options for publishing, from the registry to the running HAProxy.
#[derive(Debug, Clone, Args)]
pub struct PublishOptions {
    /// Registry and template.
    #[command(flatten)]
    pub render: RenderOptions,
    /// Configuration file and process.
    #[command(flatten)]
    pub process: ProcessOptions,
}
