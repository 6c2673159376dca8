//! The command.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pvm::cli::main()
}
