//! Safe wrappers for the operating system: atomic files, bounded reads, programs with a time limit, permissions, and
//! escaping.

pub mod atomic_file;
pub mod command;
pub mod escape;
pub mod list_file;
pub(crate) mod permissions;
pub mod read_file;
