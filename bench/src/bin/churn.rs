//! churn: to be written.

fn main() {}
