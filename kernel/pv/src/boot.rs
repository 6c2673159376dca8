//! Boot: a straight list of steps, each with its preconditions.

use alloc::vec::Vec;
use core::str::FromStr;

use ::log::LevelFilter;
use spin::Once;
use xen_abi::PAGE_SIZE;
use xen_abi::xen::{SharedInfo, StartInfo};
use zooid_core::cmdline::CommandLine;
use zooid_memory::Zone;
use zooid_memory::device::{CONSOLE, SHARED_INFO, XENSTORE};

use crate::entry::image;
use crate::{
    backtrace, console, events, gnttab, logger, mmu, power, random, thread, time, tls, trap, vector, xenstore,
};

/// Stack of the thread that runs the application's `main`, in bytes.
const MAIN_STACK_SIZE: usize = 256 << 10;

/// The application's part of the image, as the kernel sees it. The `main!` macro of `zooid` defines
/// it.
pub struct Application {
    /// The function that the first thread runs.
    pub main: fn(),
    /// Settings that the components of the image understand, besides the kernel's own.
    pub settings: &'static [&'static str],
}

unsafe extern "Rust" {
    /// Defined once per image, by the `main!` macro.
    safe static ZOOID_APPLICATION: Application;
}

static COMMAND_LINE: Once<CommandLine> = Once::new();

/// The guest's command line (`extra=` of its configuration), parsed.
pub fn command_line() -> &'static CommandLine {
    COMMAND_LINE.get().expect("the command line is used after boot")
}

/// The file that `ramdisk=` of the guest's configuration names; empty without one. It is first
/// called at boot, because the start info page of a forked child does not have it.
pub fn ramdisk() -> &'static [u8] {
    static RAMDISK: Once<&'static [u8]> = Once::new();
    RAMDISK.call_once(|| {
        let (_, _, start_info) = mmu::records();
        // SAFETY: the start info page is mapped for ever.
        let info = unsafe { &*(start_info as *const StartInfo) };
        let (start, length) = (info.mod_start as usize, info.mod_len as usize);
        let extras = image::data_end()..info.mfn_list as usize;
        if !extras.contains(&start) || length > extras.end - start {
            return &[];
        }
        // SAFETY: the range is behind the image, where all is mapped read-only for ever.
        unsafe { core::slice::from_raw_parts(start as *const u8, length) }
    })
}

/// The entry after the domain builder: called by `_start` on the boot stack, with events masked.
#[unsafe(no_mangle)]
extern "C" fn zooid_boot(info_address: usize, builder_stack_top: usize) -> ! {
    // SAFETY: Xen passes the address of the start info page, which is private to this domain and
    // stays.
    let info = unsafe { &*(info_address as *const StartInfo) };

    // Needs nothing. From here on a fault causes a report and an orderly crash.
    trap::init();
    // Needs the builder's mapping. From here on there is output.
    let console_page = mmu::boot_address_of(info.console.mfn);
    // SAFETY: the toolstack made this page the console ring; the builder mapped it.
    unsafe { console::init(console_page as *mut u8, info.console.evtchn) };
    // Needs that only the console, which moves, holds addresses of the builder's mapping. The order
    // is that of `zooid_memory::device`.
    let devices = [xen_abi::Mfn::containing(info.shared_info), info.console.mfn, info.store_mfn];
    // SAFETY: once, on the boot stack, with Xen's values.
    let layout = unsafe { mmu::init(info, info_address, builder_stack_top, &devices) };
    let device = |number: usize| (Zone::Device.base() + number * PAGE_SIZE) as *mut u8;
    events::set_shared_info(device(SHARED_INFO).cast::<SharedInfo>());
    // SAFETY: the same ring at its final address.
    unsafe { console::init(device(CONSOLE), info.console.evtchn) };
    // Needs the console.
    logger::init();
    // Needs the heap, which needs page tables.
    mmu::init_space(&layout);
    // SAFETY: mapped read-only by `mmu::init`, for ever.
    backtrace::init(unsafe { core::slice::from_raw_parts(layout.extras.start as *const u8, layout.extras.len()) });
    read_command_line(info);
    warn_of_other_vcpus();
    tls::set_canary(random::u64());
    // Need the device zone and the heap.
    gnttab::init().unwrap_or_else(|error| panic!("Xen gives no grant table: {error}"));
    time::init();
    console::init_events();
    // SAFETY: the toolstack made this page the xenstore ring; it is mapped for ever.
    unsafe { xenstore::init(device(XENSTORE), info.store_evtchn) };
    // Needs all of the above.
    thread::spawn("main", MAIN_STACK_SIZE, first_thread).unwrap_or_else(|error| refuse(format_args!("{error}")));
    thread::start()
}

/// The function that the image's first thread calls before `main`, in the image's mode; set by a
/// component.
pub static BEFORE_MAIN: Once<fn()> = Once::new();

fn first_thread() {
    mmu::free_boot_stack();
    let memory = mmu::statistics();
    ::log::info!(
        "Zooid {}: {} KiB of memory, {} KiB free",
        env!("CARGO_PKG_VERSION"),
        memory.total * 4,
        memory.free * 4
    );
    vector::init();
    power::obey_toolstack();
    start_components();
    (ZOOID_APPLICATION.main)();
    power::poweroff()
}

/// Has boot call a function of a component: defines a static that whatever belongs to the component
/// refers to by [`black_box`](core::hint::black_box), so that an image holds both or neither. The
/// name is the component's own.
#[macro_export]
macro_rules! at_boot {
    ($(#[$doc:meta])* $static:ident, $name:literal, $function:path) => {
        $(#[$doc])*
        // SAFETY: the section is an array of `fn()`, one for each of these statics.
        #[unsafe(link_section = concat!(".zooid.init.", $name))]
        static $static: fn() = $function;
    };
}

/// Calls the functions that the components of the image have placed in the sections
/// `.zooid.init.*`.
fn start_components() {
    for entry in (image::init_start()..image::init_end()).step_by(size_of::<fn()>()) {
        // SAFETY: the section is an array of `fn()`: components put nothing else there (`at_boot`).
        let start = unsafe { *(entry as *const fn()) };
        start();
    }
}

/// Ends the guest because of its configuration, with one line on the console and the reason
/// `crash`.
pub fn refuse(reason: core::fmt::Arguments<'_>) -> ! {
    console::print(format_args!("zooid: {reason}\n"));
    console::drain();
    power::crash()
}

fn read_command_line(info: &StartInfo) {
    const OWN_SETTINGS: [&str; 2] = ["log", "root"];
    let known: Vec<&str> = OWN_SETTINGS.iter().chain(ZOOID_APPLICATION.settings).copied().collect();
    let line = match CommandLine::parse(&info.cmd_line, &known) {
        Ok(line) => line,
        Err(error) => refuse(format_args!("{error}")),
    };
    if let Some(level) = line.setting("log") {
        match LevelFilter::from_str(level) {
            Ok(level) => ::log::set_max_level(level),
            Err(_) => refuse(format_args!("log={level}: the levels are off, error, warn, info, debug, trace")),
        }
    }
    COMMAND_LINE.call_once(|| line);
}

fn warn_of_other_vcpus() {
    if xen_sys::vcpu_op_is_up(1).is_ok() {
        ::log::warn!("a pVM uses one vCPU: set vcpus=1 in the configuration, the others stay offline");
    }
}
