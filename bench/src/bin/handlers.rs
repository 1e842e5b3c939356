//! handlers: to be written.

fn main() {}
