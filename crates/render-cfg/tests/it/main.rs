//! The tests of `render-cfg`, as one program: it is linked once.

mod cli;
mod golden;
mod services;
mod users;
