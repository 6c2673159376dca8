//! The objects that the image itself needs. An image that was linked with shared objects has a
//! dynamic section; its DT_NEEDED objects are loaded before `main`.

use zooid_kernel::boot;
use zooid_loader::Object;

use crate::source::File;
use crate::{Error, load, rules, update_requests};

// linker.ld
unsafe extern "C" {
    static __text_start: u8;
    static __rodata_end: u8;
    static __data_end: u8;
    static __dynamic_start: u8;
    static __dynamic_end: u8;
}

/// Runs in the first thread, in the image's mode, before `main`.
pub fn start() {
    open_needed();
    update_requests::start();
}

fn open_needed() {
    let dynamic = (&raw const __dynamic_start).addr() as u64..(&raw const __dynamic_end).addr() as u64;
    if dynamic.is_empty() {
        return;
    }
    let (start, end) = (&raw const __text_start, (&raw const __rodata_end).addr());
    // SAFETY: text and constants of the image, which are mapped without a gap and never change.
    let constants = unsafe { core::slice::from_raw_parts(start, end - start.addr()) };
    let constants = File::Archive { octets: constants, manifest: None };
    let program = Object::program(constants, start.addr() as u64, (&raw const __data_end).addr() as u64, dynamic)
        .map_err(|refusal| Error::Refused { object: rules::image().into(), refusal });
    if let Err(error) = program.and_then(load::open_needed) {
        boot::refuse(format_args!("{error}"));
    }
}
