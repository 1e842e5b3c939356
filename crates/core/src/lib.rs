//! From cluster membership to a running HAProxy: what the tools share.
//!
//! The cluster's state passes through four places, each derived from the one before it:
//!
//! ```text
//! members ──► registry ──► file ──► process
//! ```
//!
//! [`event`] and [`members`] read what Serf says, [`networks`] decides where nodes may be; [`registry`] keeps one file a node; [`render`] turns the
//! registry into the text of `haproxy.cfg`; [`publish`] makes file and running HAProxy equal to that text,
//! with the help of [`config`] and [`plan`] (what differs), [`haproxy`] (its sockets) and [`running`] (what the
//! process is known to run). Modules without a path or a socket in their arguments are pure.

pub mod cli;
pub mod config;
pub mod containers;
pub mod counters;
pub mod deadline;
pub mod event;
pub mod handler;
pub mod haproxy;
pub mod lock;
pub mod log;
pub mod members;
pub mod networks;
pub mod node;
pub mod options;
pub mod plan;
mod process;
pub mod program;
mod public;
pub mod publish;
pub mod published;
pub mod quote;
pub mod read;
pub mod registry;
pub mod render;
pub mod replace;
pub mod running;
pub mod serf;
pub mod sync;
pub mod wake;
