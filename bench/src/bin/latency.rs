//! latency: to be written.

fn main() {}
