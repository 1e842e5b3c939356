//! What holds for any node, any member list, any two files; and a publish to a HAProxy that a test scripts.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "all of it is test code")]

mod accepted;
mod any;
mod difference;
mod file;
mod inverse;
mod model;
mod publish;
mod scripted;
mod services;
mod sync;
mod world;
