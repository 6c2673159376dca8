//! Memory that is shared with relatives, and the table of members: requests to pvmd
//! (docs/protocols/ipc.md).

use core::sync::atomic::{AtomicU32, Ordering};

use spin::Once;
use xen_abi::pte::PTES_PER_TABLE;
use xen_abi::{Errno, Mfn, PAGE_SIZE};
use zooid_fork_plan::id::PvmId;
use zooid_fork_plan::wire::{self, MAX_NAME, daemon, device, guest, members, object_flags, operation};
use zooid_kernel::mmu;
use zooid_kernel::shared::SharedPages;

use crate::control::{Control, Held, control};

/// The functions of the IpC component that are called when a relative is made or ends. Its
/// functions for forks and ends of this pVM are registered in [`life`](zooid_kernel::life), at the
/// place `Ipc`; in a child its number as a member is known by then.
pub struct Relatives {
    /// Called when the table of members has changed, or when a relative wants this pVM to check its
    /// waits.
    pub news: fn(),
    /// Called in a parent, with events masked, for a new child, which has its parent's objects.
    pub child: fn(PvmId),
}

static RELATIVES: Once<Relatives> = Once::new();
/// The number of news that were looked at.
static NEWS: AtomicU32 = AtomicU32::new(0);

/// An object that pvmd has found or made.
struct Created {
    number: u32,
    pages: usize,
    /// True if it was made by this request. It is zeroed then.
    is_new: bool,
    is_named: bool,
}

fn the_control() -> Result<&'static Control, Errno> {
    crate::present();
    control().ok_or(Errno::ENOTCONN)
}

/// Sets the functions for news. Before that this pVM gets none.
pub fn take_part(relatives: Relatives) -> Result<(), Errno> {
    let control = the_control()?;
    RELATIVES.call_once(|| relatives);
    control.page.write_u32(guest::INTEREST, 1);
    Ok(())
}

/// Makes an object of `pages` pages, or opens the one that has this name, and maps all of it. A new
/// one is zeroed; `fill` writes the first content of it. A fork comes before all of this or after it.
///
/// # Errors
/// `EEXIST`, `ENOENT`, `EINVAL` (the name), `ENOSPC`, `ENOMEM`, `EMFILE`; `ENOTCONN` when there is
/// no pvmd.
pub fn open(
    name: Option<&str>,
    pages: usize,
    make: bool,
    exclusive: bool,
    fill: impl FnOnce(&SharedPages),
) -> Result<SharedPages, Errno> {
    the_control()?.hold(|held| {
        let created = create(held, name, pages, make, exclusive)?;
        let pages = map(held, &created)?;
        if created.is_new {
            fill(&pages);
        }
        Ok(pages)
    })
}

fn create(held: &mut Held, name: Option<&str>, pages: usize, make: bool, exclusive: bool) -> Result<Created, Errno> {
    let name = name.unwrap_or_default().as_bytes();
    if name.len() > MAX_NAME {
        return Err(Errno::EINVAL);
    }
    let pages = u32::try_from(pages).map_err(|_| Errno::ENOSPC)?;
    let mut flags = 0;
    for (flag, set) in [(object_flags::CREATE, make), (object_flags::EXCLUSIVE, exclusive)] {
        flags |= if set { flag } else { 0 };
    }
    let fill = |page: &SharedPages| {
        write_name(page, name);
        page.write_u32(guest::OBJECT_PAGES, pages);
        page.write_u32(guest::OBJECT_FLAGS, flags);
    };
    held.request(operation::CREATE, 1, fill, |page| Created {
        number: page.read_u32(daemon::OBJECT),
        pages: page.read_u32(daemon::OBJECT_PAGES) as usize,
        is_new: page.read_u32(daemon::OBJECT_IS_NEW) != 0,
        is_named: !name.is_empty(),
    })
}

fn write_name(page: &SharedPages, name: &[u8]) {
    page.write_u32(guest::NAME_LENGTH, name.len() as u32);
    page.copy_in(guest::NAME, name);
}

/// Maps all of an object. Only its creator can map an anonymous one, once.
fn map(held: &mut Held, object: &Created) -> Result<SharedPages, Errno> {
    let start = mmu::allocate_joint(object.pages).ok_or(Errno::ENOMEM)?;
    let mut offset = 0;
    while offset < object.pages {
        let (table, index) = mmu::place_of(start + offset * PAGE_SIZE).expect("the tables were made");
        let count = (object.pages - offset).min(PTES_PER_TABLE - index);
        let last = offset + count == object.pages && !object.is_named;
        let fill = |page: &SharedPages| {
            page.write_u64(guest::MAP_TABLE, table.0);
            page.write_u32(guest::MAP_INDEX, index as u32);
            page.write_u32(guest::OBJECT, object.number);
            page.write_u32(guest::OBJECT_OFFSET, offset as u32);
            page.write_u32(guest::OBJECT_FLAGS, if last { object_flags::LAST } else { 0 });
        };
        if let Err(error) = held.request(operation::MAP, count as u32, fill, |_| ()) {
            mmu::free_joint(start, object.pages);
            return Err(error);
        }
        offset += count;
    }
    // SAFETY: all of its pages were mapped above.
    Ok(unsafe { mmu::adopt_joint(start, object.pages) })
}

/// The machine frame of an object's first page, which no other object has.
pub fn first_frame(pages: &SharedPages) -> Option<Mfn> {
    mmu::mfn_of(pages.address())
}

/// Unmaps the pages of [`open`].
pub fn unmap(pages: &SharedPages) {
    mmu::free_joint(pages.address(), pages.len() / PAGE_SIZE);
}

/// Removes a name. A member that has the object keeps it.
pub fn unlink(name: &str) -> Result<(), Errno> {
    if name.len() > MAX_NAME {
        return Err(Errno::EINVAL);
    }
    the_control()?.request(operation::UNLINK, 1, |page| write_name(page, name.as_bytes()), |_| ())
}

/// Asks pvmd to tell a member that it has news.
pub fn relay(member: u16) -> Result<(), Errno> {
    the_control()?.request(operation::RELAY, 1, |page| page.write_u32(guest::OBJECT, member.into()), |_| ())
}

/// Asks pvmd to send a signal to a relative.
///
/// # Errors
/// `ESRCH` when the family has no such pVM, `EINVAL`; `ENOTCONN` when there is no pvmd.
pub fn kill(target: PvmId, signal: u8) -> Result<(), Errno> {
    the_control()?.request(operation::KILL, signal.into(), |page| page.write_u32(guest::OBJECT, target.raw()), |_| ())
}

/// The function that is called with signals that pvmd passes on, in place of the default action.
static SIGNAL: Once<fn(u8)> = Once::new();

/// Sets the function that is called with signals that pvmd passes on, and with `SIGCHLD` (17) when
/// a child has ended.
pub fn handle_signals(handler: fn(u8)) {
    SIGNAL.call_once(|| handler);
}

pub(crate) fn signal_handler() -> Option<fn(u8)> {
    SIGNAL.get().copied()
}

/// This pVM's number as a member; `None` if neither it nor an ancestor before the fork has asked
/// for an object.
pub fn member() -> Option<u16> {
    let number = control()?.page.read_u32(daemon::MEMBER).checked_sub(1)?;
    (number < members::MAX as u32).then_some(number as u16)
}

/// The id of the member with this number, if it lives. Only a member may ask.
pub fn member_id(number: u16) -> Option<PvmId> {
    let number = usize::from(number);
    (number < members::MAX).then(|| table_word(members::IDS + 4 * number)).and_then(PvmId::from_raw)
}

/// The number of a member that lives.
pub fn member_number(id: PvmId) -> Option<u16> {
    (0..members::MAX as u16).find(|number| member_id(*number) == Some(id))
}

fn table_word(offset: usize) -> u32 {
    // SAFETY: pvmd has mapped the table there before it gave this pVM a number; a word that it may
    // change at any time.
    unsafe { ((wire::device_page(device::MEMBERS) + offset) as *const u32).read_volatile() }
}

/// True if there are news that nobody has looked at.
pub(crate) fn has_news(control: &Control) -> bool {
    RELATIVES.is_completed() && NEWS.load(Ordering::Relaxed) != control.page.read_u32_acquire(daemon::NEWS)
}

/// Asks for a call of `news` soon, in the component's own thread.
pub fn look_again() {
    if let Some(control) = control() {
        NEWS.fetch_sub(1, Ordering::Relaxed);
        control.event.signal();
    }
}

/// Calls `news` if there are news.
pub(crate) fn take_news(control: &Control) {
    let news = control.page.read_u32_acquire(daemon::NEWS);
    if NEWS.swap(news, Ordering::Relaxed) != news
        && let Some(relatives) = RELATIVES.get()
    {
        (relatives.news)();
    }
}

/// Tells the IpC component of new children, in the parent, before its threads go on.
pub(crate) fn adopt(children: impl Iterator<Item = PvmId>) {
    if let Some(relatives) = RELATIVES.get() {
        children.for_each(relatives.child);
    }
}

/// Tells pvmd, in a child, if it wants to hear of others' ends.
pub(crate) fn begin_life(control: &Control) {
    NEWS.store(0, Ordering::Relaxed);
    control.page.write_u32(guest::INTEREST, u32::from(RELATIVES.is_completed()));
}
