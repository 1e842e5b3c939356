//! Property tests of what is pure, or nearly so: what holds for any node, any member list, any two files.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "all of it is test code")]

mod accepted;
mod any;
mod difference;
mod inverse;
mod model;
mod sync;
