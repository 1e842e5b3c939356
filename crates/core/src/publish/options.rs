//! Everything from the registry to the running HAProxy.

use clap::Args;

use crate::config::template::RenderOptions;
use crate::haproxy::ProcessOptions;

/// Everything from the registry to the running HAProxy.
#[derive(Debug, Clone, Args)]
pub struct PublishOptions {
    /// Registry and template.
    #[command(flatten)]
    pub render: RenderOptions,
    /// File and process.
    #[command(flatten)]
    pub process: ProcessOptions,
}
