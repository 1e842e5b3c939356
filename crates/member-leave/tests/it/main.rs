//! The tests of `member-leave`, as one program: it is linked once.

mod cli;
