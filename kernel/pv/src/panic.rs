//! The end of a guest that panics: reports the place and the back trace, and ends the domain with
//! the reason `crash`.

use core::fmt::Write;
use core::panic::PanicInfo;

use crate::console::Emergency;
use crate::{backtrace, events, power, thread};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _mask = events::mask();
    let mut out = Emergency::begin();
    let _ = write!(out, "\nzooid: panic in {}: {}", thread::Running, info.message());
    if let Some(place) = info.location() {
        let _ = write!(out, "\nat {place}");
    }
    let _ = writeln!(out);
    let _ = backtrace::print_here(&mut out);
    power::crash()
}
