//! Libraries that are replaced while they are in use: the entries by which other objects reach
//! their functions, and the steps from one version to another.
//!
//! An entry is a jump by way of its slot, a word with the address of the function. While a library
//! is being replaced, and for a function that is still to be chosen (IFUNC), the slot leads to the
//! instructions behind the jump instead: to the *gate*, which waits until a version is in place.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::arch::{asm, naked_asm};
use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::{AtomicPtr, Ordering};
use core::time::Duration;

use xen_abi::PAGE_SIZE;
use zooid_kernel::events::{self, Masked};
use zooid_kernel::mmu::libraries::{Library, OutOfMemory};
use zooid_kernel::sync::WaitQueue;
use zooid_kernel::thread::{self, ThreadId};
use zooid_kernel::{console, stacks, time};
use zooid_loader::{
    Definition, ENTRIES_PER_PAGE, ENTRY_SIZE, ExportTable, Id, Namespace, Replacement, Rights, SymbolKind,
    entry_address, entry_number,
};
use zooid_manifest::Version;
use zooid_memory::{PageClass, Zone};

use crate::Error;
use crate::lazy::{restore, save};
use crate::load::{self, Key, Load, Loader, TURNS, apply, unload_unused, with};
use crate::rules;
use crate::source::{self, File};

/// The most pages of entries that a library can have; they are mapped as they are used.
const PAGES: usize = 16;

/// The longest time for which an update waits before it checks again that the threads have left the
/// library. Most threads report it when they leave.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The time for which the first attempt keeps the gate closed; each further one has twice as much.
const ATTEMPT: Duration = Duration::from_millis(100);

/// A replaceable library. Its key is the address of its first entry.
pub struct Live {
    pub id: Id,
    name: String,
    version: Version,
    pages: Library,
    /// Number of mapped pages of entries.
    mapped: usize,
    /// The targets of the entries.
    targets: Vec<Definition>,
}

/// The threads that use libraries, and the library that may not be called now.
struct Gate {
    closed: Option<Closed>,
    /// Threads in sections that use a library, with the depth of the nesting.
    sections: Vec<(ThreadId, Key, usize)>,
}

/// The library that is being replaced.
struct Closed {
    library: Key,
    /// The text of the old version.
    text: Vec<Range<u64>>,
    by: ThreadId,
}

static GATE: Masked<Gate> = Masked::new(Gate { closed: None, sections: Vec::new() });
/// Threads that wait until the gate is open.
static NEWCOMERS: WaitQueue = WaitQueue::new();
/// The thread that waits until all others have left the old version.
static REPLACER: WaitQueue = WaitQueue::new();

impl Gate {
    fn is_closed(&self, library: Key) -> bool {
        self.closed.as_ref().is_some_and(|closed| closed.library == library)
    }

    /// The index of a thread's entry among the sections.
    fn section(&self, thread: ThreadId, library: Key) -> Option<usize> {
        self.sections.iter().position(|(other, used, _)| (*other, *used) == (thread, library))
    }

    /// True if the calling thread may go on into a library: the library is open, or this thread
    /// must leave it before it can be replaced. `frame` is that of a function of this thread that
    /// has not returned.
    fn admits(&self, library: Key, frame: u64) -> bool {
        let Some(closed) = self.closed.as_ref().filter(|closed| closed.library == library) else { return true };
        let me = thread::current();
        // SAFETY: the caller of this function names a frame of its thread.
        closed.by == me || self.section(me, library).is_some() || unsafe { stacks::caller_in(&closed.text, frame) }
    }

    /// True if no thread is in the old version.
    fn is_left(&mut self) -> bool {
        let Some(closed) = &self.closed else { return true };
        // In the child of a fork, most threads of the parent do not exist.
        self.sections.retain(|(thread, ..)| thread::is_alive(*thread));
        !self.sections.iter().any(|(_, library, _)| *library == closed.library) && !stacks::any_in(&closed.text)
    }
}

/// Waits until the calling thread may go on into a library.
fn wait_for(library: Key, frame: u64, mut then: impl FnMut(&mut Gate)) {
    NEWCOMERS.wait_until(None, || {
        let mut gate = GATE.lock();
        let admits = gate.admits(library, frame);
        if admits {
            then(&mut gate);
        } else {
            drop(gate);
            REPLACER.wake_all();
        }
        admits
    });
}

/// Begins a section in which the calling thread sees one version of a library only.
pub fn enter(library: Key) {
    let frame: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    wait_for(library, frame, |gate| {
        let me = thread::current();
        match gate.section(me, library) {
            Some(place) => gate.sections[place].2 += 1,
            None => gate.sections.push((me, library, 1)),
        }
    });
}

/// Ends a section that [`enter`] has begun; without one, it does nothing.
pub fn leave(library: Key) {
    let mut gate = GATE.lock();
    let Some(place) = gate.section(thread::current(), library) else { return };
    gate.sections[place].2 -= 1;
    if gate.sections[place].2 == 0 {
        gate.sections.swap_remove(place);
        if gate.is_closed(library) {
            drop(gate);
            REPLACER.wake_all();
        }
    }
}

/// Gives a library that was added its entries; all or nothing.
pub fn begin(loader: &mut Loader, id: Id, name: &str, version: Version) -> Result<(), OutOfMemory> {
    let pages = Library::new(2 * PAGES)?;
    let start = pages.start() as u64;
    loader.namespace.make_live(id, start, PAGES);
    let live = Live { id, name: name.to_string(), version, pages, mapped: 0, targets: Vec::new() };
    loader.live.insert(Key(start), live);
    Ok(())
}

/// Fills the entries that were handed out since the last call. If it fails, they are dropped.
pub fn fill(loader: &mut Loader) -> Result<(), Error> {
    let Loader { namespace, live, .. } = loader;
    for (key, live) in live {
        let first = live.targets.len();
        if namespace.entries(live.id) == first {
            continue;
        }
        let targets = namespace
            .targets(live.id, live.id, first)
            .map_err(|refusal| Error::Refused { object: live.name.clone(), refusal })
            .and_then(|targets| live.make_room(first + targets.len()).map(|()| targets));
        match targets {
            Ok(targets) => {
                live.targets.extend(targets);
                live.set_slots(first, GATE.lock().is_closed(*key));
            }
            Err(error) => {
                namespace.forget_entries(live.id, first);
                return Err(error);
            }
        }
    }
    Ok(())
}

impl Live {
    /// Drops the entries that are not filled yet.
    pub fn forget_new(&self, namespace: &mut Namespace<File, ExportTable<'static>>) {
        namespace.forget_entries(self.id, self.targets.len());
    }

    /// Maps pages for `count` entries.
    fn make_room(&mut self, count: usize) -> Result<(), Error> {
        while self.mapped < count.div_ceil(ENTRIES_PER_PAGE) {
            let page = 2 * self.mapped;
            self.pages.map(page..page + 2, 0, &[]).map_err(|OutOfMemory| Error::OutOfMemory)?;
            let start = self.pages.start() + page * PAGE_SIZE;
            // SAFETY: two pages that were mapped just now, and that no other code uses.
            unsafe { write_entries(start) };
            self.pages.set_class(page..page + 1, PageClass::Text);
            self.mapped += 1;
        }
        Ok(())
    }

    /// Sets the slots of the entries from number `first` on to their targets.
    fn set_slots(&self, first: usize, closed: bool) {
        for (number, target) in self.targets.iter().enumerate().skip(first) {
            let entry = entry_address(self.pages.start() as u64, number);
            let value = match target {
                Definition::Address(address) if !closed => *address,
                _ => entry + JUMP_LENGTH,
            };
            // SAFETY: the slot of a mapped entry: a word that other threads read at any time.
            unsafe { ((entry as usize + PAGE_SIZE) as *mut u64).write_volatile(value) };
        }
    }
}

/// Octets of an entry's first instruction.
const JUMP_LENGTH: u64 = 6;

/// Fills a page of entries, and the first slot behind it.
///
/// # Safety
/// Both pages can be written.
unsafe fn write_entries(page: usize) {
    let mut content = [0xcc_u8; PAGE_SIZE];
    let number = ((page - Zone::Libraries.base()) as u64 / ENTRY_SIZE) as u32;
    for (place, entry) in content.chunks_exact_mut(ENTRY_SIZE as usize).enumerate() {
        // jmp *slot(%rip)
        entry[..2].copy_from_slice(&[0xff, 0x25]);
        entry[2..6].copy_from_slice(&(PAGE_SIZE as i32 - JUMP_LENGTH as i32).to_le_bytes());
        if place > 0 {
            // push the number among all addresses of libraries; jmp to the first entry
            entry[6] = 0x68;
            entry[7..11].copy_from_slice(&(number + place as u32).to_le_bytes());
            entry[11] = 0xe9;
            entry[12..].copy_from_slice(&(-((place as i32 + 1) * ENTRY_SIZE as i32)).to_le_bytes());
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        (page as *mut [u8; PAGE_SIZE]).write(content);
        ((page + PAGE_SIZE) as *mut u64).write(gate as *const () as u64);
    }
}

/// The function that [`gate`] calls; a variable for the reason given in [`lazy`](crate::lazy).
static PASS: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets [`PASS`]. It is called before an object is loaded.
pub fn init() {
    PASS.store(pass as *mut (), Ordering::Relaxed);
}

/// The target of an entry whose function cannot be called at once. It continues to the function as
/// if it had been called directly, with all arguments. The entry's number is on the stack.
#[unsafe(naked)]
unsafe extern "C" fn gate() {
    naked_asm!(
        // `r11` is free at a call (psABI x86-64, 3.2.1); without the number the frame is an
        // ordinary one.
        "pop r11",
        save!(),
        "mov rdi, r11",
        "mov rsi, rbp",
        "call [rip + {pass}]",
        // The place where `save` has put r11.
        "mov [rbp - 72], rax",
        restore!(),
        "jmp r11",
        pass = sym PASS,
    );
}

extern "C" fn pass(number: u64, frame: u64) -> u64 {
    let entry = Zone::Libraries.base() as u64 + u64::from(number as u32) * ENTRY_SIZE;
    let find = |loader: &mut Loader| {
        let (key, live) = loader.live.iter().find(|(_, live)| live.pages.range().contains(&(entry as usize)))?;
        let number = entry_number(key.0, entry)?;
        Some((*key, number, *live.targets.get(number)?))
    };
    let (library, ..) = with(find).expect("who calls a library has it open");
    wait_for(library, frame, |_| ());
    match with(find).expect("as above") {
        (_, _, Definition::Address(address)) => address,
        (_, number, Definition::Resolver(resolver)) => {
            // SAFETY: a resolver of a library that is loaded, relocated and initialised.
            let resolve = unsafe { core::mem::transmute::<usize, extern "C" fn() -> u64>(resolver as usize) };
            let address = resolve();
            with(|loader| {
                let Some(live) = loader.live.get_mut(&library) else { return };
                // The target may have been replaced meanwhile.
                if live.targets.get(number) == Some(&Definition::Resolver(resolver)) {
                    live.targets[number] = Definition::Address(address);
                    live.set_slots(number, GATE.lock().is_closed(library));
                }
            });
            address
        }
        (_, _, Definition::ThreadLocal { .. }) => unreachable!("an entry is a function's"),
    }
}

/// Replaces an open library by another version of it; see [`crate::update`].
pub fn update(name: &str, version: Option<&str>, limit: Duration) -> Result<(Version, Version), Error> {
    let result = replace(name, version, time::after(limit));
    match &result {
        Ok((from, to)) if from == to => console::print(format_args!("library {name}: is {to} already\n")),
        Ok((from, to)) => console::print(format_args!("library {name}: {from} -> {to}\n")),
        Err(error) => log::warn!("library {name} stays as it is: {error}"),
    }
    result
}

fn replace(name: &str, version: Option<&str>, deadline: u64) -> Result<(Version, Version), Error> {
    load::has_room(load::ROOM)?;
    let Some(_turn) = TURNS.take() else { return Err(Error::Busy) };
    let no_version = || Error::NoVersion { object: name.to_string(), version: version.map(ToString::to_string) };
    let wanted = version.map(Version::parse).transpose().map_err(|_| no_version())?;
    let (library, old, from) = with(|loader| match loader.namespace.find(name) {
        None => Err(Error::NotOpen),
        Some(id) => {
            let (key, live) =
                loader.live.iter().find(|(_, live)| live.id == id).ok_or(Error::NotLive(name.to_string()))?;
            Ok((*key, live.id, live.version.clone()))
        }
    })?;
    let found = source::find_version(name, wanted.as_ref()).map_err(|error| match error {
        Error::NotFound(_) => no_version(),
        other => other,
    })?;
    if rules::judge(name, &found)? == from {
        return Ok((from.clone(), from));
    }
    load::has_room(load::ROOM + found.as_ref().len() / 8)?;
    let (key, to) = Load::new(name).run(|load, loader| load.link_beside(loader, old, found))?;
    let result = exchange(library, old, key, name, &to, deadline);
    if result.is_err() {
        with(|loader| loader.set_open(key, 0));
    }
    // This unloads the old version, or the new one.
    unload_unused();
    result.map(|()| (from, to))
}

/// Puts a version in the place of another, which is then no longer open. Both are relocated and
/// initialised.
fn exchange(library: Key, old: Id, key: Key, name: &str, to: &Version, deadline: u64) -> Result<(), Error> {
    let (new, old_key, text) = with(|loader| {
        let new = loader.id(key).ok_or(Error::NotOpen)?;
        let old_key = loader.key(old).ok_or(Error::NotOpen)?;
        // This comes before any thread waits.
        loader.replacement(old, new)?;
        let segments = loader.namespace.object(old).ok_or(Error::NotOpen)?.segments();
        let text = segments
            .iter()
            .filter(|segment| segment.rights == Rights::ReadExecute)
            .map(|segment| old_key.0.wrapping_add(segment.pages().start)..old_key.0.wrapping_add(segment.pages().end));
        Ok((new, old_key, text.collect()))
    })?;
    reach_safe_point(name, library, text, deadline)?;
    let result = migrate(name, old_key, new, key).and_then(|()| {
        with(|loader| {
            let replacement = loader.replacement(old, new)?;
            let _mask = events::mask();
            // `migrate` may have taken its time, and not every call goes through an entry.
            if !GATE.lock().is_left() {
                return Err(Error::TimeLimit(name.to_string()));
            }
            publish(loader, library, old, new, to, replacement)
        })
    });
    set_gate(library, None);
    result
}

/// Closes the gate, or opens it for all who wait.
fn set_gate(library: Key, closed: Option<Closed>) {
    let opens = closed.is_none();
    GATE.lock().closed = closed;
    set_slots(library);
    if opens {
        NEWCOMERS.wake_all();
    }
}

/// Sets all slots of a library to their targets.
fn set_slots(library: Key) {
    with(|loader| {
        if let Some(live) = loader.live.get(&library) {
            live.set_slots(0, GATE.lock().is_closed(library));
        }
    });
}

/// Closes the gate, and waits until no thread is in the old version, whose text is `text`. On an
/// error the gate is open.
///
/// A thread may sit in the library for longer than others can wait. So the gate opens between
/// attempts, for as long as it was closed.
fn reach_safe_point(name: &str, library: Key, text: Vec<Range<u64>>, deadline: u64) -> Result<(), Error> {
    let mut attempt = ATTEMPT;
    loop {
        set_gate(library, Some(Closed { library, text: text.clone(), by: thread::current() }));
        if is_left_until(time::after(attempt).min(deadline)) {
            return Ok(());
        }
        set_gate(library, None);
        if time::now() >= deadline {
            return Err(Error::TimeLimit(name.to_string()));
        }
        thread::sleep_until(time::after(attempt).min(deadline));
        attempt *= 2;
    }
}

/// Waits until no thread is in the old version; false if that does not come before `deadline`.
fn is_left_until(deadline: u64) -> bool {
    loop {
        let look_again = time::after(LOOK_AGAIN).min(deadline);
        if REPLACER.wait_until(Some(look_again), || GATE.lock().is_left()) {
            return true;
        }
        if time::now() >= deadline {
            return false;
        }
    }
}

/// Lets the new version take over the state of the old one, if it exports `migrate`.
fn migrate(name: &str, old: Key, new: Id, key: Key) -> Result<(), Error> {
    let hook = with(|loader| {
        let hook = loader.namespace.object(new)?.symbol("migrate", None)?;
        (hook.defined && hook.kind == SymbolKind::Function).then(|| key.0.wrapping_add(hook.address))
    });
    let Some(hook) = hook else { return Ok(()) };
    // SAFETY: the type of this function is laid down in docs/libraries.md, and the library is
    // initialised.
    let hook = unsafe { core::mem::transmute::<usize, extern "C" fn(*mut c_void, *mut c_void) -> i32>(hook as usize) };
    match hook(old.0 as *mut c_void, key.0 as *mut c_void) {
        0 => Ok(()),
        code => Err(Error::Migration { object: name.to_string(), code }),
    }
}

/// Makes the new version the one that is found and called; all or nothing. Events are masked, and
/// no thread is in the old one.
fn publish(
    loader: &mut Loader,
    library: Key,
    old: Id,
    new: Id,
    to: &Version,
    replacement: Replacement,
) -> Result<(), Error> {
    loader.unseal(&replacement.writes)?;
    let (mut calls, mut indices) = (Vec::new(), Vec::new());
    replacement.writes.iter().for_each(|write| apply(*write, &mut calls, &mut indices));
    loader.seal(&replacement.writes);
    loader.exchange(old, new);
    if let Some(live) = loader.live.get_mut(&library) {
        (live.targets, live.version) = (replacement.targets, to.clone());
    }
    Ok(())
}
