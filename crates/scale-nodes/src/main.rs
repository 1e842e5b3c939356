//! The program `scale-nodes`; see the library of the same name.

fn main() -> std::process::ExitCode {
    lb_core::tool::main(scale_nodes::run)
}
