//! traffic: to be written.

fn main() {}
