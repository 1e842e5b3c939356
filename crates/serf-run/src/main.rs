//! The program `serf-run`; see the library of the same name.

fn main() -> std::process::ExitCode {
    lb_core::tool::main(serf_run::run)
}
