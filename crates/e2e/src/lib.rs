//! Shared by the container tests: a private network with real containers on it, and ways to inspect them.
//!
//! The images must exist (`./build-images.sh`). The names of everything that a test starts begin with `e2e`. It is removed at the
//! end of the test, and `test.sh` uses that prefix to remove what an interrupted run leaves behind. A running lab is not
//! disturbed: tests use their own names, networks and ports. All waiting is polling with a deadline. Functions here do not
//! return errors; a failure ends the test with a message.

pub mod balancer;
pub mod browser;
pub mod container;
pub mod docker;
pub mod http;
pub mod lab;
pub mod live;
pub mod wait;

pub use balancer::Balancer;
pub use container::Container;
pub use lab::{Lab, Look};
pub use live::{Live, State};
pub use wait::eventually;
