//! The tests of `member-join`, as one program: it is linked once.

mod cli;
mod deadline;
mod disk;
mod faults;
mod handler;
mod hostile;
mod large;
