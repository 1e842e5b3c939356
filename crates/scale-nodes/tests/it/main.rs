//! The tests of `scale-nodes`, as one program: it is linked once.

mod cli;
mod decision;
