//! Of all pages that are mapped, none is writable and executable, no frame is writable at two
//! addresses, and no page table is writable at all. The lower half of the address space, with the
//! null page, is empty.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;

use test_guests::{check, check_eq, expect, failure, success};
use xen_abi::Mfn;
use xen_abi::PAGE_SIZE;
use xen_abi::pte::{PTES_PER_TABLE, Pte, PteFlags};
use zooid::{memory, println, thread};
use zooid_kernel::mmu::libraries::Library;

zooid::main!(main);

/// The address at which the kernel maps its page tables for reading, by pfn (libos/memory,
/// `Zone::Tables`).
const TABLES: usize = 0xffff_ffc2_0000_0000;
/// The address of Xen's table from mfn to pfn (public/arch-x86/xen-x86_64.h, MACH2PHYS_VIRT_START).
const M2P: usize = 0xffff_8000_0000_0000;
/// Entries of a level 4 table that are Xen's (ROOT_PAGETABLE_FIRST_XEN_SLOT to LAST_XEN_SLOT, the
/// same header).
const XEN_SLOTS: core::ops::RangeInclusive<usize> = 256..=271;

/// The uses of a frame.
#[derive(Clone, Copy, Default)]
struct Frame {
    writable: bool,
    table: bool,
}

struct Walk {
    frames: Vec<Frame>,
    pages: usize,
    executable: usize,
}

fn main() {
    // Pages of all kinds: heap, stacks in use, and stacks that were in use.
    let block = vec![1u8; 1 << 20];
    thread::spawn(|| ()).join();
    let count = memory::statistics().total / PAGE_SIZE;
    let mut walk = Walk { frames: vec![Frame::default(); count], pages: 0, executable: 0 };
    let root: u64;
    // SAFETY: Xen emulates the read for a PV kernel and gives the frame of the root table.
    unsafe { asm!("mov {}, cr3", out(reg) root) };
    let root = walk.pfn(Mfn(root / PAGE_SIZE as u64), 0);
    walk.table(root, 4, 0);
    println!("{} pages, {} of them executable", walk.pages, walk.executable);
    check!(walk.pages > 256 && walk.executable > 0 && walk.executable < 256);
    for (pfn, frame) in walk.frames.iter().enumerate() {
        if frame.table && frame.writable {
            failure!("frame {pfn:#x} is a page table and writable");
        }
    }
    drop(block);
    unmapping_takes_nothing();
    success();
}

/// Unmapping pages that were never mapped takes no page table: an object that could be loaded only
/// in part goes, also where no frame is left.
fn unmapping_takes_nothing() {
    /// The pages that 16 tables of level 1 cover.
    const PAGES: usize = 16 * PTES_PER_TABLE;
    let free = || zooid_kernel::mmu::statistics().free;
    let mut library = expect!(Library::new(PAGES));
    expect!(library.map(0..1, 0, b"content"));
    let before = free();
    drop(library);
    // The page's frame is free again, and nothing was taken for it.
    check_eq!(free(), before + 1);
}

impl Walk {
    /// The pfn of one of this domain's frames.
    fn pfn(&self, frame: Mfn, address: usize) -> usize {
        // SAFETY: Xen maps the table for every PV guest, with an entry for each frame of the host.
        let pfn = unsafe { (M2P as *const u64).add(frame.0 as usize).read_volatile() } as usize;
        if pfn >= self.frames.len() {
            failure!("{address:#x} leads to the frame {:#x}, which is not this domain's", frame.0);
        }
        pfn
    }

    /// Looks at the table in frame `pfn`, of `level`, whose first entry is for `address`.
    fn table(&mut self, pfn: usize, level: u32, address: usize) {
        self.frames[pfn].table = true;
        let span = PAGE_SIZE << (9 * (level - 1));
        for index in 0..PTES_PER_TABLE {
            if level == 4 && XEN_SLOTS.contains(&index) {
                continue;
            }
            let entry = ((TABLES + pfn * PAGE_SIZE) as *const Pte).wrapping_add(index);
            // SAFETY: every page table is mapped there.
            let entry = unsafe { entry.read_volatile() };
            if !entry.is_present() {
                continue;
            }
            let mut address = address + index * span;
            if level == 4 {
                check!(index >= 256);
                address |= 0xffff << 48;
            }
            match level {
                1 => self.page(entry, address),
                _ => {
                    let below = self.pfn(entry.mfn(), address);
                    self.table(below, level - 1, address);
                }
            }
        }
    }

    fn page(&mut self, entry: Pte, address: usize) {
        let writable = entry.flags().contains(PteFlags::WRITABLE);
        let executable = !entry.flags().contains(PteFlags::NO_EXECUTE);
        self.pages += 1;
        self.executable += usize::from(executable);
        if writable && executable {
            failure!("{address:#x} is writable and executable");
        }
        // The shared info page and the grant table are Xen's frames.
        let device = (0xffff_ffc0_4000_0000..0xffff_ffc0_8000_0000).contains(&address);
        if writable && !device {
            let pfn = self.pfn(entry.mfn(), address);
            if core::mem::replace(&mut self.frames[pfn].writable, true) {
                failure!("{address:#x}: frame {pfn:#x} is also writable elsewhere");
            }
        }
    }
}
