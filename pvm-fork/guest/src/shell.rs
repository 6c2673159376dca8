//! The code that a prepared domain runs until it becomes a child.
//!
//! Its variables are not there yet (their pages are filled by the snapshot), and nothing it maps of
//! its parent may be written. So the code here uses its stack, its special pages, constants, and
//! hypercalls, and nothing else: no lock, no log, no heap.

use core::arch::naked_asm;

use xen_abi::arch_x86::SegmentBase;
use xen_abi::pte::Pte;
use xen_abi::xen::{MmuextOp, SharedInfo, UvmFlags, Virq};
use xen_abi::{DomId, Mfn, PAGE_SIZE, Port};
use zooid_fork_plan::wire::{self, daemon, device, guest, snapshot, state};
use zooid_kernel::mmu::cow::copy_page;
use zooid_kernel::{evtchn, gnttab, life};
use zooid_memory::PageClass;

/// The entry of a prepared domain, which runs on its own small stack, with the address of the
/// control page in rdi. From Xen 4.20 on, the x87 is as after a reset: its stack is full.
#[unsafe(naked)]
pub extern "C" fn shell_entry() -> ! {
    naked_asm!("cld", "fninit", "xor ebp, ebp", "call {main}", "ud2", main = sym shell_main)
}

/// A word of this domain's control page.
fn control(offset: usize) -> *mut u32 {
    (wire::device_page(device::CONTROL) + offset) as *mut u32
}

extern "C" fn shell_main() -> ! {
    life::init_traps();
    let _ = xen_sys::vcpu_op_stop_periodic_timer(0);
    let timer = xen_sys::event_channel_op_bind_virq(Virq::TIMER, 0).unwrap_or(Port(0));
    map_grant_table();
    // SAFETY: pvmd has mapped the control page at this address, for this domain alone and itself;
    // words, read and written once.
    let port = unsafe {
        control(guest::TIMER_PORT).write_volatile(timer.0);
        control(guest::STATE).write_volatile(state::WAITING);
        Port(control(daemon::PORT).read_volatile())
    };
    let _ = xen_sys::event_channel_op_send(port);
    loop {
        // SAFETY: pvmd has mapped this domain's shared info there.
        unsafe { evtchn::clear_pending(wire::device_page(device::SHARED_INFO) as *mut SharedInfo, port) };
        // SAFETY: as above.
        if unsafe { control(daemon::GO).read_volatile() } != 0 {
            break;
        }
        let _ = xen_sys::sched_op_poll(&[port], 0);
    }
    resume()
}

/// Maps this domain's grant table where the parent has its own.
fn map_grant_table() {
    let mut frames = [Mfn(0); gnttab::FRAMES as usize];
    let Ok(()) = xen_sys::grant_table_op_setup_table(DomId::SELF, &mut frames) else { return };
    for (number, frame) in frames.iter().enumerate() {
        let address = wire::device_page(device::GRANT_TABLE + number);
        // SAFETY: pages with this fixed place, which nothing else uses.
        let _ = unsafe {
            xen_sys::update_va_mapping(address as u64, Pte::new(*frame, PageClass::Device.pte_flags()), UvmFlags::NONE)
        };
    }
}

/// Fills the private pages from the parent's snapshot and goes on where the parent called.
fn resume() -> ! {
    // pvmd has changed entries of tables that this vcpu may have cached.
    // SAFETY: forgets cached translations only.
    let _ = unsafe { xen_sys::mmuext_op(&[MmuextOp::tlb_flush_local()], DomId::SELF) };
    // SAFETY: pvmd wrote it before GO.
    let start = unsafe { control(daemon::SNAPSHOT).cast::<u64>().read_volatile() } as usize;
    // SAFETY: the parent's snapshot is mapped there for reading, and does not change before this
    // domain says that it is RUNNING.
    let word = |offset: usize| unsafe { ((start + offset) as *const u64).read() };
    let header = word(snapshot::HEADER_PAGES) as usize;
    for page in 0..word(snapshot::COUNT) as usize {
        let target = word(snapshot::TARGETS + page * 8);
        // SAFETY: the parent named its own private pages, for which pvmd has given this domain
        // frames at the same addresses. This stack is none of them.
        unsafe { copy_page((start + (header + page) * PAGE_SIZE) as *const u64, target as *mut u64) };
    }
    // SAFETY: the thread block lies on the stack that was copied just now.
    let _ = unsafe { xen_sys::set_segment_base(SegmentBase::FS, word(snapshot::THREAD_BLOCK)) };
    let rsp = word(snapshot::RSP);
    // SAFETY: as above.
    unsafe { control(guest::STATE).write_volatile(state::RUNNING) };
    // SAFETY: stack, variables and `%fs` are as they were; the rest of the memory is as it was, or
    // on its way (copy-on-write).
    unsafe { life::resume_at(rsp, crate::forking::IN_CHILD) }
}
