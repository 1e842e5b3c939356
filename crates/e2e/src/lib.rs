//! What the container tests share: a network of their own with real containers on it, and ways to look at them.
//!
//! The images must be there (`./build-images.sh`). The names of all that a test starts begin with `e2e`; it is removed
//! at the test's end, and what an interrupted run leaves behind, `test.sh` removes by that name. A running lab is not disturbed: names,
//! network and ports are the test's own. All waiting is polling with a deadline. Nothing here returns an error: what
//! cannot be done ends the test with a message.

pub mod balancer;
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
