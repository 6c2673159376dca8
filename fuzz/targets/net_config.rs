//! The `net=` setting: parsing never panics, and an error is one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zooid_net::NetConfig;

fuzz_target!(|text: &str| {
    if let Err(error) = text.parse::<NetConfig>() {
        assert!(!error.to_string().contains('\n'));
    }
});
