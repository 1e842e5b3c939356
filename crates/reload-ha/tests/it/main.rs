//! The tests of `reload-ha`, as one program: it is linked once.

mod cli;
