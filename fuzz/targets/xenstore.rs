//! The xenstore client: whatever xenstored sends, and in whatever portions, ends in messages or in an error that stays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zooid_core::xenstore::{Client, Command};

fuzz_target!(|portions: Vec<&[u8]>| {
    let mut client = Client::new();
    let request = Command::Read("control/shutdown").into();
    client.encode(&request).expect("a short path");
    for portion in portions {
        client.feed(portion);
        loop {
            match client.receive() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(client.receive(), Err(error));
                    return;
                }
            }
        }
    }
});
