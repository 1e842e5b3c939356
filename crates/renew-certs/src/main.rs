//! The `renew-certs` program; everything is in the library of the same name.

fn main() -> std::process::ExitCode {
    lb_core::tool::main(renew_certs::run)
}
