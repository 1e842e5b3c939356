//! From cluster membership to a running HAProxy: what the tools share.
//!
//! The cluster's state passes through four places, each derived from the one before it. Each is a room here, and what
//! leads to it is in the room where it ends:
//!
//! ```text
//! members ──► registry ──► config ──► haproxy
//! ```
//!
//! [`members`] is what Serf says; [`registry`] has one file for each node; [`config`] is the text of `haproxy.cfg`, made
//! from the registry by a template; [`haproxy`] is the running process, and the plan that makes it run what the text
//! says. [`publish`] goes from the registry to the process in one go. [`tool`] is what a command line tool is made of, and
//! [`os`] what all of them need of the system. [`node`] has the checked types that pass through all of it.

pub mod config;
pub mod haproxy;
pub mod members;
pub mod node;
pub mod os;
pub mod publish;
pub mod registry;
pub mod tool;
