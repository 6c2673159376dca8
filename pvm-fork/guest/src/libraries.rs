//! Libraries of the host's store: requests to pvmd (docs/protocols/libraries.md).

use core::sync::atomic::{AtomicBool, Ordering};

use xen_abi::Errno;
use zooid_fork_plan::wire::{MAX_NAME, daemon, guest, object_flags, operation};
use zooid_kernel::{mmu, time};

use crate::control::{Control, control};
use crate::family::FIRST_SIGHT;

/// Most octets of a text in a request.
pub const MAX_TEXT: usize = MAX_NAME;

/// A library that pvmd has found.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    number: u32,
    /// Octets of the file.
    pub size: usize,
    /// Octets of the manifest, which begins at the first page behind the file's.
    pub manifest_size: usize,
    /// Pages of both.
    pub pages: usize,
}

/// The channel, if there is a pvmd at its other end. After one wait in vain there is no second one.
fn the_control() -> Result<&'static Control, Errno> {
    static WAITED: AtomicBool = AtomicBool::new(false);
    crate::present();
    let control = control().ok_or(Errno::ENOTCONN)?;
    let seen = || control.page.read_u32(daemon::ID) != 0;
    if !seen() && !WAITED.swap(true, Ordering::Relaxed) {
        control.event.wait_for(Some(time::now() + FIRST_SIGHT), seen);
    }
    if seen() { Ok(control) } else { Err(Errno::ENOTCONN) }
}

/// Opens the highest version of a library whose rules hold as far as pvmd can judge them. `wanted`
/// has the lines of a LIBRARY.
///
/// # Errors
/// `ENOENT`; `EACCES`: a rule does not hold, which pvmd tells dom0's users; `ENOTCONN` when there
/// is no pvmd, and others.
pub fn open(wanted: &str, user_mode: bool) -> Result<Opened, Errno> {
    if wanted.len() > MAX_NAME {
        return Err(Errno::ENAMETOOLONG);
    }
    let control = the_control()?;
    control.request(
        operation::LIBRARY,
        0,
        |page| {
            page.write_u32(guest::NAME_LENGTH, wanted.len() as u32);
            page.copy_in(guest::NAME, wanted.as_bytes());
            page.write_u32(guest::OBJECT_FLAGS, if user_mode { object_flags::USER_MODE } else { 0 });
        },
        |page| Opened {
            number: page.read_u32(daemon::OBJECT),
            size: page.read_u64(daemon::FILE_SIZE) as usize,
            manifest_size: page.read_u32(daemon::MANIFEST_SIZE) as usize,
            pages: page.read_u32(daemon::OBJECT_PAGES) as usize,
        },
    )
}

/// Asks pvmd to map `count` pages of a library, from page `offset` on, at `address`, for reading or
/// for executing. One table of level 1, which is there, covers them.
///
/// # Errors
/// `ENOENT`: pvmd does not know it any more; and others.
pub fn map(library: Opened, offset: usize, address: usize, count: usize, execute: bool) -> Result<(), Errno> {
    the_control()?.request(
        operation::MAP_LIBRARY,
        count as u32,
        |page| {
            // The frame of the table is another one in a child, in which this may go on.
            let (table, index) = mmu::place_of(address).expect("the tables were made");
            page.write_u64(guest::MAP_TABLE, table.0);
            page.write_u32(guest::MAP_INDEX, index as u32);
            page.write_u32(guest::OBJECT, library.number);
            page.write_u32(guest::OBJECT_OFFSET, offset as u32);
            page.write_u32(guest::OBJECT_FLAGS, if execute { object_flags::EXECUTE } else { 0 });
        },
        |_| (),
    )
}

/// Tells pvmd that the answer to its request for an update is in xenstore.
pub fn answered() {
    if let Ok(control) = the_control() {
        control.notify();
    }
}

/// Tells pvmd that a rule does not hold for a library: `NAME: RULE`, which is cut if it is too
/// long.
pub fn refused(text: &str) {
    let Ok(control) = the_control() else { return };
    let plain = |octet: u8| if matches!(octet, b' '..=b'~') { octet } else { b'?' };
    let mut octets = [0; MAX_NAME];
    let length = text.len().min(MAX_NAME);
    octets.iter_mut().zip(text.bytes()).for_each(|(to, octet)| *to = plain(octet));
    let fill = |page: &zooid_kernel::shared::SharedPages| {
        page.write_u32(guest::NAME_LENGTH, length as u32);
        page.copy_in(guest::NAME, &octets[..length]);
    };
    if let Err(error) = control.request(operation::REFUSED, 0, fill, |_| ()) {
        log::debug!("pvmd is not told: {error}");
    }
}
