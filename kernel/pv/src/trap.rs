//! Exceptions and event upcalls: one entry for all ([`zooid_trap`]).
//!
//! A write to a page that a fork has protected is resolved (`mmu::cow`). Any other exception is
//! reported with its kind, place, registers and back trace, and ends the domain with the reason
//! `crash`. A fault on the stack itself is not reported: Xen cannot push a frame there and ends the
//! domain by itself (`docs/caveats.md`).

use core::fmt::{self, Write};

use xen_abi::arch_x86::{FLAT_KERNEL_CS, TrapInfo};
use xen_abi::callback::{CallbackFlags, CallbackRegister, CallbackType};

use crate::entry::{event_upcall_entry, failsafe_entry, image, trap_entry_table};
use crate::{backtrace, console, events, evtchn, mmu, power, thread};

/// Registers of the interrupted code, as `trap_common` of `entry.S` pushes them.
#[repr(C)]
#[derive(Debug)]
pub struct TrapFrame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const VECTOR_PAGE_FAULT: u64 = 14;
const VECTOR_EVENT: u64 = 256;
const VECTOR_FAILSAFE: u64 = 257;

/// Names of the vectors (Intel SDM volume 3, table 6-1). Higher vectors belong to other ways of
/// virtualisation.
const NAMES: [&str; 22] = [
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range",
    "#UD invalid opcode",
    "#NM device not available",
    "#DF double fault",
    "coprocessor overrun",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack fault",
    "#GP general protection",
    "#PF page fault",
    "spurious interrupt",
    "#MF x87 error",
    "#AC alignment check",
    "#MC machine check",
    "#XM SIMD error",
    "#VE virtualization",
    "#CP control protection",
];

/// Passes the trap table and the callbacks to Xen. From here on an exception is reported.
pub fn init() {
    let mut table = [TrapInfo::END; 33];
    // SAFETY: a constant array that the assembly defines.
    let entries = unsafe { &trap_entry_table };
    for (vector, (slot, entry)) in table.iter_mut().zip(entries).enumerate() {
        *slot = TrapInfo {
            vector: vector as u8,
            // User mode may raise int3 and into.
            flags: TrapInfo::MASK_EVENTS | if matches!(vector, 3 | 4) { 3 } else { 0 },
            cs: FLAT_KERNEL_CS,
            address: *entry,
        };
    }
    // SAFETY: every address is a trap entry of entry.S; the table ends with a zero entry.
    unsafe { xen_sys::set_trap_table(&table) }.expect("Xen refuses the trap table");
    let callbacks =
        [(CallbackType::EVENT, event_upcall_entry as *const ()), (CallbackType::FAILSAFE, failsafe_entry as *const ())];
    for (kind, entry) in callbacks {
        let callback = CallbackRegister { kind, flags: CallbackFlags::MASK_EVENTS, address: entry as u64 };
        // SAFETY: an entry of entry.S that was made for this callback.
        unsafe { xen_sys::callback_op_register(callback) }.expect("Xen refuses a callback");
    }
}

/// In saved flags: events were not masked (public/arch-x86/xen.h).
const EVENTS_UNMASKED: u64 = 1 << 9;

/// In a saved cs: the code ran in user mode, to which only Xen can return.
const USER: u64 = 3;

/// Called by `trap_common` with events masked. Returns true if events are as they were, so that the
/// processor can return by itself, which is hundreds of instructions cheaper than a return by Xen.
#[unsafe(no_mangle)]
extern "C" fn zooid_trap(frame: &TrapFrame) -> bool {
    if frame.vector == VECTOR_EVENT {
        evtchn::upcall();
        thread::preempt();
        return false;
    }
    if frame.vector == VECTOR_PAGE_FAULT
        && frame.error & 0b11 == 0b11
        && let Some(resolve) = mmu::cow::WRITE_FAULT.get()
        && resolve(fault_address() as usize)
    {
        // An event before the end of the return is one more frame on this stack, and no more than
        // one, because its own return is Xen's.
        if frame.rflags & EVENTS_UNMASKED != 0 {
            events::unmask();
        }
        return frame.cs & USER == 0;
    }
    crash(frame);
}

fn fault_address() -> u64 {
    // SAFETY: a mapped word that Xen wrote before it entered the page fault's vector.
    unsafe { (&raw const (*events::vcpu_info()).arch.cr2).read_volatile() }
}

fn crash(frame: &TrapFrame) -> ! {
    let _mask = events::mask();
    let mut out = console::Emergency::begin();
    let _ = report(&mut out, frame);
    power::crash()
}

fn report(out: &mut impl Write, frame: &TrapFrame) -> fmt::Result {
    let name = match frame.vector {
        VECTOR_FAILSAFE => "failsafe callback",
        vector => NAMES.get(vector as usize).copied().unwrap_or("unknown vector"),
    };
    writeln!(out, "\nzooid: exception {name}, error code {:#x}", frame.error)?;
    if frame.vector == VECTOR_PAGE_FAULT {
        let address = fault_address();
        let access = match frame.error & 0x13 {
            error if error & 0x10 != 0 => "execution of",
            error if error & 0x2 != 0 => "write to",
            _ => "read of",
        };
        writeln!(out, "{access} {address:#018x}: {}", mmu::describe(address))?;
    }
    writeln!(out, "in {}", thread::Running)?;
    writeln!(out, "rip {:#018x}  rsp {:#018x}  rflags {:#010x}", frame.rip, frame.rsp, frame.rflags)?;
    writeln!(out, "cs {:#06x}  ss {:#06x}", frame.cs & 0xffff, frame.ss & 0xffff)?;
    let registers = [
        ("rax", frame.rax),
        ("rbx", frame.rbx),
        ("rcx", frame.rcx),
        ("rdx", frame.rdx),
        ("rsi", frame.rsi),
        ("rdi", frame.rdi),
        ("rbp", frame.rbp),
        ("r8", frame.r8),
        ("r9", frame.r9),
        ("r10", frame.r10),
        ("r11", frame.r11),
        ("r12", frame.r12),
        ("r13", frame.r13),
        ("r14", frame.r14),
        ("r15", frame.r15),
    ];
    for row in registers.chunks(3) {
        for (name, value) in row {
            write!(out, "{name:>3} {value:#018x}  ")?;
        }
        writeln!(out)?;
    }
    backtrace::print(out, frame.rip, frame.rbp)?;
    if !(image::text_start() as u64..image::text_end() as u64).contains(&frame.rip) {
        // A jump to a bad address leaves no frame of its own, so the word at rsp is the return
        // address.
        if let Some(caller) = mmu::read_stack_word(frame.rsp) {
            writeln!(out, "called from {}", backtrace::Symbol(caller))?;
        }
    }
    Ok(())
}
