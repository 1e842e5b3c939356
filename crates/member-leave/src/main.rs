//! The program `member-leave`; see the library of the same name.

fn main() -> std::process::ExitCode {
    lb_core::cli::main(member_leave::run)
}
