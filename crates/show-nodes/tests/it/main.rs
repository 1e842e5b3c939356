//! What `show-nodes` shows beside a real Serf agent and a real HAProxy.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what the tests share is test code, which the lint cannot know"
)]

mod balancer;
mod differences;
mod live;
mod metrics;
mod one;
mod page;
mod table;
