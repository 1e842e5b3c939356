//! The program `sync-nodes`; see the library of the same name.

fn main() -> std::process::ExitCode {
    lb_core::tool::main(sync_nodes::run)
}
