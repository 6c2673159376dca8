//! `public/xen.h`: hypercall numbers, domains, virtual interrupts, page-table operations, and the
//! small operations that have no header of their own. The pages that Xen hands to a guest are in
//! [`StartInfo`] and [`SharedInfo`].

mod shared_info;
mod start_info;

pub use shared_info::{PvclockFlags, SharedInfo, VcpuInfo, VcpuTimeInfo, XEN_LEGACY_MAX_VCPUS};
pub use start_info::{MAX_GUEST_CMDLINE, SifFlags, StartInfo, StartInfoConsole};

use crate::Mfn;

open_enum! {
    /// A hypercall's number, `__HYPERVISOR_*`.
    pub struct Hypercall: u32 {
        SET_TRAP_TABLE = 0;
        MMU_UPDATE = 1;
        SET_GDT = 2;
        STACK_SWITCH = 3;
        SET_CALLBACKS = 4;
        FPU_TASKSWITCH = 5;
        PLATFORM_OP = 7;
        SET_DEBUGREG = 8;
        GET_DEBUGREG = 9;
        UPDATE_DESCRIPTOR = 10;
        MEMORY_OP = 12;
        MULTICALL = 13;
        UPDATE_VA_MAPPING = 14;
        SET_TIMER_OP = 15;
        XEN_VERSION = 17;
        CONSOLE_IO = 18;
        GRANT_TABLE_OP = 20;
        VM_ASSIST = 21;
        UPDATE_VA_MAPPING_OTHERDOMAIN = 22;
        IRET = 23;
        VCPU_OP = 24;
        SET_SEGMENT_BASE = 25;
        MMUEXT_OP = 26;
        XSM_OP = 27;
        NMI_OP = 28;
        SCHED_OP = 29;
        CALLBACK_OP = 30;
        XENOPROF_OP = 31;
        EVENT_CHANNEL_OP = 32;
        PHYSDEV_OP = 33;
        HVM_OP = 34;
        SYSCTL = 35;
        DOMCTL = 36;
        KEXEC_OP = 37;
        ARGO_OP = 39;
        XENPMU_OP = 40;
        DM_OP = 41;
        HYPFS_OP = 42;
    }
}

/// A domain's number, `domid_t`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(pub u16);

impl DomId {
    /// The control domain.
    pub const DOM0: DomId = DomId(0);
    /// The first number that no ordinary domain has.
    pub const FIRST_RESERVED: DomId = DomId(0x7ff0);
    /// The calling domain.
    pub const SELF: DomId = DomId(0x7ff0);
    /// Owner of I/O memory, in a page-table operation that names an owner.
    pub const IO: DomId = DomId(0x7ff1);
    /// Owner of Xen's own pages, in a page-table operation that names an owner.
    pub const XEN: DomId = DomId(0x7ff2);
    /// Owner of pages shared between domains.
    pub const COW: DomId = DomId(0x7ff3);
    /// Any domain: `createdomain` chooses a number (since Xen 4.22).
    pub const ANY: DomId = DomId(0x7ff5);
    /// No domain.
    pub const INVALID: DomId = DomId(0x7ff4);
    /// The idle domain.
    pub const IDLE: DomId = DomId(0x7fff);
}

impl core::fmt::Display for DomId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

open_enum! {
    /// A virtual interrupt, `VIRQ_*`; its events come through a port that is bound to it.
    pub struct Virq: u32 {
        /// Per vcpu: the time base was updated, or a requested time has come.
        TIMER = 0;
        /// Per vcpu: dom0 asks the guest to show its state.
        DEBUG = 1;
        /// dom0: bytes received on the emergency console.
        CONSOLE = 2;
        /// dom0: the state of a domain changed, for example by its end.
        DOM_EXC = 3;
        /// dom0: records in the trace buffer.
        TBUF = 4;
        /// dom0: a domain stopped for its debugger.
        DEBUGGER = 6;
        /// Per vcpu: a profile sample.
        XENOPROF = 7;
        /// dom0: bytes received on the console.
        CON_RING = 8;
        /// dom0: a processor went on or off line.
        PCPU_STATE = 9;
        /// dom0: a memory event.
        MEM_EVENT = 10;
        /// An Argo message.
        ARGO = 11;
        /// dom0: Xen's heap is short of memory.
        ENOMEM = 12;
        /// Per vcpu: a performance counter's interrupt.
        XENPMU = 13;
    }
}

/// Number of virtual interrupts that Xen provides for.
pub const NR_VIRQS: u32 = 24;

open_enum! {
    /// The action of one [`MmuUpdate`], held in the two low bits of its `ptr`.
    pub struct MmuCommand: u64 {
        /// Write a page-table entry, after Xen's checks.
        NORMAL_PT_UPDATE = 0;
        /// Set the pfn that the machine-to-physical table has for a frame.
        MACHPHYS_UPDATE = 1;
        /// As `NORMAL_PT_UPDATE`, but keep the accessed and dirty bits that the entry has.
        PT_UPDATE_PRESERVE_AD = 2;
        /// As `NORMAL_PT_UPDATE`, with a value that is never translated.
        PT_UPDATE_NO_TRANSLATE = 3;
    }
}

/// One request of `mmu_update`, `struct mmu_update`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmuUpdate {
    /// The maddr to change, with an [`MmuCommand`] in bits 0 and 1.
    pub ptr: u64,
    /// The new contents.
    pub val: u64,
}
assert_layout!(MmuUpdate, 16, ptr: 0, val: 8);

impl MmuUpdate {
    /// Writes `pte` to the page-table entry at `maddr`, a multiple of 8.
    #[must_use]
    pub const fn pte(maddr: u64, pte: crate::pte::Pte) -> MmuUpdate {
        MmuUpdate { ptr: maddr | MmuCommand::NORMAL_PT_UPDATE.0, val: pte.0 }
    }

    /// Makes the machine-to-physical table say that `mfn` is the guest's frame `pfn`.
    #[must_use]
    pub const fn machphys(mfn: Mfn, pfn: crate::Pfn) -> MmuUpdate {
        MmuUpdate { ptr: mfn.addr() | MmuCommand::MACHPHYS_UPDATE.0, val: pfn.0 }
    }
}

open_enum! {
    /// The action of an [`MmuextOp`], `MMUEXT_*`.
    pub struct MmuextCmd: u32 {
        /// Check `mfn` as a table of level 1 and keep it checked.
        PIN_L1_TABLE = 0;
        /// Check `mfn` as a table of level 2 and keep it checked.
        PIN_L2_TABLE = 1;
        /// Check `mfn` as a table of level 3 and keep it checked.
        PIN_L3_TABLE = 2;
        /// Check `mfn` as a table of level 4 and keep it checked.
        PIN_L4_TABLE = 3;
        /// Give up the pin of `mfn`.
        UNPIN_TABLE = 4;
        /// Make `mfn` the root of the kernel's address space.
        NEW_BASEPTR = 5;
        /// Flush this vcpu's TLB.
        TLB_FLUSH_LOCAL = 6;
        /// Flush one address from this vcpu's TLB.
        INVLPG_LOCAL = 7;
        /// Flush the TLBs of the vcpus in a mask.
        TLB_FLUSH_MULTI = 8;
        /// Flush one address from the TLBs of the vcpus in a mask.
        INVLPG_MULTI = 9;
        /// Flush every vcpu's TLB.
        TLB_FLUSH_ALL = 10;
        /// Flush one address from every vcpu's TLB.
        INVLPG_ALL = 11;
        /// Write back and flush the caches.
        FLUSH_CACHE = 12;
        /// Set the local descriptor table.
        SET_LDT = 13;
        /// Make `mfn` the root of the address space of guest user mode.
        NEW_USER_BASEPTR = 15;
        /// Fill the frame `mfn` with zeros.
        CLEAR_PAGE = 16;
        /// Copy a frame to `mfn`.
        COPY_PAGE = 17;
        /// Write back and flush the caches of all processors.
        FLUSH_CACHE_GLOBAL = 18;
        /// Mark a run of frames for use as a large page.
        MARK_SUPER = 19;
        /// Undo `MARK_SUPER`.
        UNMARK_SUPER = 20;
    }
}

/// One request of `mmuext_op`, `struct mmuext_op`. The meaning of the two arguments depends on
/// `cmd`. The constructors below cover the requests that the guest makes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmuextOp {
    /// The action.
    pub cmd: MmuextCmd,
    /// An mfn, or a linear address.
    pub arg1: u64,
    /// A number of entries, the address of a vcpu mask, or a source mfn.
    pub arg2: u64,
}
assert_layout!(MmuextOp, 24, cmd: 0, arg1: 8, arg2: 16);

impl MmuextOp {
    /// A request about the frame `mfn`: pin, unpin, new base pointer, clear.
    #[must_use]
    pub const fn on_frame(cmd: MmuextCmd, mfn: Mfn) -> MmuextOp {
        MmuextOp { cmd, arg1: mfn.0, arg2: 0 }
    }

    /// Copies the frame `source` to the frame `target`.
    #[must_use]
    pub const fn copy_page(target: Mfn, source: Mfn) -> MmuextOp {
        MmuextOp { cmd: MmuextCmd::COPY_PAGE, arg1: target.0, arg2: source.0 }
    }

    /// Flushes this vcpu's TLB.
    #[must_use]
    pub const fn tlb_flush_local() -> MmuextOp {
        MmuextOp { cmd: MmuextCmd::TLB_FLUSH_LOCAL, arg1: 0, arg2: 0 }
    }

    /// Flushes the page at `vaddr` from this vcpu's TLB.
    #[must_use]
    pub const fn invlpg_local(vaddr: u64) -> MmuextOp {
        MmuextOp { cmd: MmuextCmd::INVLPG_LOCAL, arg1: vaddr, arg2: 0 }
    }
}

bitflags::bitflags! {
    /// The part of the TLB that `update_va_mapping` flushes, `UVMF_*`. Without `ALL`, only this
    /// vcpu's TLB is meant.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct UvmFlags: u64 {
        /// Flush nothing.
        const NONE = 0;
        /// Flush the whole TLB.
        const TLB_FLUSH = 1;
        /// Flush this one entry.
        const INVLPG = 2;
        /// On every vcpu.
        const ALL = 1 << 2;
    }
}

open_enum! {
    /// An operation of `console_io`, `CONSOLEIO_*`.
    pub struct ConsoleIo: u32 {
        /// Write to Xen's console. A release build of Xen lets only dom0 do it.
        WRITE = 0;
        /// Read from Xen's console.
        READ = 1;
    }
}

open_enum! {
    /// An operation of `vm_assist`, `VMASST_CMD_*`.
    pub struct VmAssistCmd: u32 {
        /// Switch an assist on.
        ENABLE = 0;
        /// Switch it off.
        DISABLE = 1;
    }
}

open_enum! {
    /// An assist, `VMASST_TYPE_*`.
    pub struct VmAssistType: u32 {
        /// x86/32: segment limits of 4 GiB.
        FOUR_GB_SEGMENTS = 0;
        /// x86/32: tell when the former is used.
        FOUR_GB_SEGMENTS_NOTIFY = 1;
        /// Emulate writes to page tables that the guest has mapped.
        WRITABLE_PAGETABLES = 2;
        /// x86/PAE: page directories above 4 GiB.
        PAE_EXTENDED_CR3 = 3;
        /// IOPL as the architecture has it, not per domain.
        ARCHITECTURAL_IOPL = 4;
        /// Mark a run-state area while Xen updates it.
        RUNSTATE_UPDATE_FLAG = 5;
        /// Hide the machine-to-physical table from guest user mode.
        M2P_STRICT = 32;
    }
}

/// One call of a `multicall`, `struct multicall_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MulticallEntry {
    /// The hypercall's number, see [`Hypercall`].
    pub op: u64,
    /// Out: the hypercall's return value; see [`Errno::check`](crate::Errno::check).
    pub result: i64,
    /// Its arguments; unused ones do not matter.
    pub args: [u64; 6],
}
assert_layout!(MulticallEntry, 64, op: 0, result: 8, args: 16);
