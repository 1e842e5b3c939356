//! The `member-join` program; everything is in the library of the same name.

fn main() -> std::process::ExitCode {
    lb_core::tool::main(member_join::run)
}
