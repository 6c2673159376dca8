//! The ways in which a domain ends, and the toolstack's requests about it (`control/shutdown`).

use core::fmt;

use xen_abi::sched::ShutdownReason;

use crate::life::{self, Ending};
use crate::{console, thread, xenstore};

/// Ends the domain with the reason `crash`: faults and panics.
pub fn crash() -> ! {
    shutdown(ShutdownReason::CRASH)
}

/// Ends the pVM with an exit code, after the console's last bytes were taken; says so if it is not 0.
pub fn exit(code: i32) -> ! {
    if code != 0 {
        console::print(format_args!("zooid: exit code {code}\n"));
    }
    life::end(Ending::Exited(code));
    poweroff()
}

/// Ends the domain with the reason `poweroff`, after the console's last bytes were taken.
pub fn poweroff() -> ! {
    console::drain();
    shutdown(ShutdownReason::POWEROFF)
}

/// Ends the domain with the reason `reboot`.
pub fn reboot() -> ! {
    console::drain();
    shutdown(ShutdownReason::REBOOT)
}

#[inline(never)]
fn shutdown(reason: ShutdownReason) -> ! {
    loop {
        let _ = xen_sys::sched_op_shutdown(reason);
    }
}

/// Where the toolstack writes its requests.
pub const CONTROL_PATH: &str = "control/shutdown";

/// Starts the thread that obeys `control/shutdown` (docs/misc/xenstore-paths.pandoc, "~/control/shutdown").
pub fn obey_toolstack() {
    if let Err(error) = thread::spawn_service("shutdown", 16 << 10, watch_control) {
        will_not_obey(&error);
    }
}

fn will_not_obey(error: &dyn fmt::Display) {
    log::warn!("xl shutdown will have no effect: {error}");
}

fn watch_control() {
    life::settle();
    let mut watch = match xenstore::watch(CONTROL_PATH) {
        Ok(watch) => watch,
        Err(error) => return will_not_obey(&error),
    };
    while watch.wait(None).is_some() {
        let Ok(request) = xenstore::read(CONTROL_PATH) else { continue };
        if request.is_empty() {
            continue;
        }
        // Writing the empty string tells the toolstack that the request was seen.
        let _ = xenstore::write(CONTROL_PATH, "");
        log::info!("the toolstack asks for {request}");
        let reason = match request.as_str() {
            "poweroff" | "halt" => ShutdownReason::POWEROFF,
            "reboot" => ShutdownReason::REBOOT,
            "suspend" => {
                console::print(format_args!("zooid: suspend is not supported: save and migration are refused\n"));
                continue;
            }
            _ => {
                log::warn!("unknown request in control/shutdown");
                continue;
            }
        };
        console::drain();
        shutdown(reason);
    }
}
