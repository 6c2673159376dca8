//! An empty pVM, for `pvm run --app`.

#![no_std]
#![no_main]

zooid::main!(zooid::app::host, mode = kernel);
zooid::dl::trust!(include_bytes!("../../../libraries/test-only.pub"));
