//! The library behind the tools: from cluster membership to a running HAProxy.
//!
//! The state of the cluster passes through four places, each derived from the one before. Each place has a module, which also
//! contains the step that leads to it:
//!
//! ```text
//! members ──► registry ──► config ──► haproxy
//! ```
//!
//! [`members`] is the cluster as Serf knows it; [`registry`] has one file per node; [`config`] is the text of `haproxy.cfg`,
//! rendered from the registry; [`haproxy`] is the running process, and the plan that makes it match the text. [`publish`]
//! takes the registry all the way to the process. [`node`] and [`service`] have the checked types that all of them use,
//! [`tool`] is the framework of the command line tools, and [`os`] wraps the operating system.

pub mod certificates;
pub mod config;
pub mod haproxy;
pub mod members;
pub mod node;
pub mod os;
pub mod publish;
pub mod registry;
pub mod service;
pub mod tool;
