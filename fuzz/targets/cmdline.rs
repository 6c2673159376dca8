//! The command line: parsing never panics, and what was accepted is found again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zooid_core::cmdline::CommandLine;

fuzz_target!(|bytes: &[u8]| {
    match CommandLine::parse(bytes, &["log", "net"]) {
        Ok(line) => {
            for (name, value) in line.environment() {
                assert!(line.variable(name).is_some(), "{name}={value}");
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "an error is one line"),
    }
});
