//! The program `render-cfg`; see the library of the same name.

fn main() -> std::process::ExitCode {
    lb_core::tool::main(render_cfg::run)
}
