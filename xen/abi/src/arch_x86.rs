//! `public/arch-x86/xen.h` and `public/arch-x86/xen-x86_64.h`: traps, selectors, `iret`, and x86's
//! part of the shared page.

use crate::Mfn;

/// Selector of a 64-bit code segment for ring 3, where a PV kernel runs too.
pub const FLAT_RING3_CS64: u16 = 0xe033;
/// Selector of the stack segment that goes with it.
pub const FLAT_RING3_SS64: u16 = 0xe02b;
/// Selector of the data segment that goes with it, the null selector.
pub const FLAT_RING3_DS64: u16 = 0;
/// Code selector of a 64-bit PV kernel.
pub const FLAT_KERNEL_CS: u16 = FLAT_RING3_CS64;
/// Stack selector of a 64-bit PV kernel.
pub const FLAT_KERNEL_SS: u16 = FLAT_RING3_SS64;
/// Data selector of a 64-bit PV kernel.
pub const FLAT_KERNEL_DS: u16 = FLAT_RING3_DS64;
/// Code selector of guest user mode.
pub const FLAT_USER_CS: u16 = FLAT_RING3_CS64;
/// Stack selector of guest user mode.
pub const FLAT_USER_SS: u16 = FLAT_RING3_SS64;
/// Data selector of guest user mode.
pub const FLAT_USER_DS: u16 = FLAT_RING3_DS64;

/// First vaddr that belongs to Xen.
pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000;
/// First vaddr after those that belong to Xen.
pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000;
/// vaddr of the machine-to-physical table: a pfn (8 bytes) per mfn, which the guest may read.
pub const MACH2PHYS_VIRT_START: u64 = 0xffff_8000_0000_0000;
/// First vaddr after that table.
pub const MACH2PHYS_VIRT_END: u64 = 0xffff_8040_0000_0000;
/// Entries for which that table has room.
pub const MACH2PHYS_NR_ENTRIES: u64 = (MACH2PHYS_VIRT_END - MACH2PHYS_VIRT_START) >> 3;

/// An exception's handler for `set_trap_table`, `struct trap_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrapInfo {
    /// The exception's vector.
    pub vector: u8,
    /// Bits 0 and 1 hold the least privileged ring that may raise the exception by `int`. Bit 2 is
    /// [`TrapInfo::MASK_EVENTS`].
    pub flags: u8,
    /// The handler's code selector.
    pub cs: u16,
    /// The handler's vaddr; 0 ends a table.
    pub address: u64,
}
assert_layout!(TrapInfo, 16, vector: 0, flags: 1, cs: 2, address: 8);

impl TrapInfo {
    /// Flag: events are masked when the handler is entered.
    pub const MASK_EVENTS: u8 = 1 << 2;

    /// The entry that ends a table.
    pub const END: TrapInfo = TrapInfo { vector: 0, flags: 0, cs: 0, address: 0 };
}

open_enum! {
    /// The register that `set_segment_base` sets, `SEGBASE_*`.
    pub struct SegmentBase: u32 {
        /// The base of `fs`.
        FS = 0;
        /// The base of `gs` in guest user mode.
        GS_USER = 1;
        /// The base of `gs` in guest kernel mode.
        GS_KERNEL = 2;
        /// The `gs` selector of guest user mode, in bits 0 to 15.
        GS_USER_SEL = 3;
    }
}

bitflags::bitflags! {
    /// Flags of a vcpu's context and of [`IretContext`], `VGCF_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct VgcfFlags: u64 {
        /// The context holds FPU state.
        const I387_VALID = 1 << 0;
        /// The vcpu is in guest kernel mode.
        const IN_KERNEL = 1 << 2;
        /// Events are masked when the failsafe callback is entered.
        const FAILSAFE_DISABLES_EVENTS = 1 << 3;
        /// Events are masked when the syscall callback is entered.
        const SYSCALL_DISABLES_EVENTS = 1 << 4;
        /// The vcpu is up.
        const ONLINE = 1 << 5;
        /// `iret` returns as `sysret` does: rcx, r11, cs and ss are not restored.
        const IN_SYSCALL = 1 << 8;
    }
}

/// The frame that the `iret` hypercall reads from the stack, lowest address first, `struct
/// iret_context`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IretContext {
    /// Register after the return.
    pub rax: u64,
    /// Register after the return, unless `flags` says [`VgcfFlags::IN_SYSCALL`].
    pub r11: u64,
    /// The value of r11.
    pub rcx: u64,
    /// Flags for the return.
    pub flags: VgcfFlags,
    /// vaddr to go on at.
    pub rip: u64,
    /// Code selector, whose ring says whether guest kernel or user mode goes on.
    pub cs: u64,
    /// Bit 9 clear: events are masked after the return.
    pub rflags: u64,
    /// Stack pointer after the return.
    pub rsp: u64,
    /// Stack selector.
    pub ss: u64,
}
assert_layout!(IretContext, 72, rax: 0, flags: 24, rip: 32, ss: 64);

/// x86's part of `vcpu_info`, `struct arch_vcpu_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchVcpuInfo {
    /// The address of the last page fault.
    pub cr2: u64,
    /// Zero.
    pub pad: u64,
}
assert_layout!(ArchVcpuInfo, 16, cr2: 0);

/// x86's part of `shared_info`, `struct arch_shared_info`. The tools find the guest's p2m by it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchSharedInfo {
    /// Entries of the p2m.
    pub max_pfn: u64,
    /// Root of the three-level tree of the p2m's frames. 0: none is set up. `!0`: the linear p2m
    /// below is to be used.
    pub pfn_to_mfn_frame_list_list: Mfn,
    /// Bits `XEN_NMIREASON_*`; dom0 only.
    pub nmi_reason: u64,
    /// cr3 of the address space that `p2m_vaddr` belongs to; 0: none.
    pub p2m_cr3: u64,
    /// vaddr of the linear p2m.
    pub p2m_vaddr: u64,
    /// The guest adds 1 before and after it changes the p2m's mapping.
    pub p2m_generation: u64,
}
assert_layout!(ArchSharedInfo, 48, pfn_to_mfn_frame_list_list: 8, p2m_cr3: 24, p2m_vaddr: 32, p2m_generation: 40);
