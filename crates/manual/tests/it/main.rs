//! The tests of what is made for the tools, as one program: it is linked once.

mod cli;
mod package;
mod security;
