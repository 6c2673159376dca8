//! The daemon.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pvm::server::main()
}
