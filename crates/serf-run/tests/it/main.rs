//! The tests of `serf-run`, as one program: it is linked once.

mod cli;
mod join;
mod ready;
