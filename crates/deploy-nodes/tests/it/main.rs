//! The tests of `deploy-nodes`, as one program: it is linked once.

mod cli;
mod decision;
