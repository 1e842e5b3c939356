//! What the system does for us, made safe: files wholly old or wholly new, other programs with a time limit, untrusted
//! text in messages.

pub mod atomic_file;
pub mod command;
pub mod escape;
pub(crate) mod permissions;
pub mod read_file;
