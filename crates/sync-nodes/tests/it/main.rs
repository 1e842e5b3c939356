//! The tests of `sync-nodes`, as one program: it is linked once.

mod agent;
mod cli;
mod follow;
mod hostile;
mod registry;
mod witness;
