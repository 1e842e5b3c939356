//! The tests of `sync-nodes`, as one program: it is linked once.

mod agent;
mod certificates;
mod cli;
mod follow;
mod forged;
mod hostile;
mod registry;
mod services;
mod witness;
