//! The tests of `bundle-log`, as one program: it is linked once.

mod cli;
mod forward;
