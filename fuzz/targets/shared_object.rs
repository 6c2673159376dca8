#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../properties/shared_object.rs"]
mod property;

fuzz_target!(|input: &[u8]| property::check(input));
