//! Tests of the whole in containers, as one program. Each file is a part of the whole, seen from outside.

mod convergence;
mod crash;
mod crowd;
mod errors;
mod evidence;
mod faults;
mod forged;
mod forward;
mod hang;
mod keys;
mod logs;
mod losses;
mod membership;
mod networks;
mod outages;
mod process;
mod scale;
mod scenario;
mod scripts;
mod services;
mod show;
mod stats_page;
mod tls;
mod tools;
mod traffic;
mod tutorial;
