//! The page that describes the domain to a PV guest when it starts or resumes.

use crate::{Mfn, Pfn, Port};

/// Bytes of the command line, its NUL included.
pub const MAX_GUEST_CMDLINE: usize = 1024;

bitflags::bitflags! {
    /// Flags of [`StartInfo`], `SIF_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SifFlags: u32 {
        /// The domain is privileged.
        const PRIVILEGED = 1 << 0;
        /// The domain is dom0.
        const INITDOMAIN = 1 << 1;
        /// `mod_start` is a multiboot module.
        const MULTIBOOT_MOD = 1 << 2;
        /// `mod_start` is a pfn.
        const MOD_START_PFN = 1 << 3;
        /// The tools can follow a linear p2m (`p2m_vaddr`) and need no tree.
        const VIRT_P2M_4TOOLS = 1 << 4;
        /// Options of power management; dom0 only.
        const PM_MASK = 0xff << 8;
    }
}

/// The page that Xen hands to a PV guest's first instruction (in `rsi`), `struct start_info`.
///
/// Xen fills the fields up to `console` on boot and on resume, the others on boot only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StartInfo {
    /// `xen-<version>-<platform>`, padded with NULs.
    pub magic: [u8; 32],
    /// Pages that the domain has.
    pub nr_pages: u64,
    /// maddr of the [`SharedInfo`](super::SharedInfo) page.
    pub shared_info: u64,
    /// The kind of domain.
    pub flags: SifFlags,
    /// Frame of xenstore's ring.
    pub store_mfn: Mfn,
    /// Port of xenstore's ring.
    pub store_evtchn: Port,
    /// The place of the console.
    pub console: StartInfoConsole,
    /// vaddr of the root page table.
    pub pt_base: u64,
    /// Frames of the page tables that the builder made.
    pub nr_pt_frames: u64,
    /// vaddr of the p2m: one mfn per page.
    pub mfn_list: u64,
    /// vaddr of the module (initrd), or its pfn with [`SifFlags::MOD_START_PFN`]; 0 without a
    /// module.
    pub mod_start: u64,
    /// Bytes of the module.
    pub mod_len: u64,
    /// The command line, ended by a NUL.
    pub cmd_line: [u8; MAX_GUEST_CMDLINE],
    /// First frame of the p2m, if it is not in the initial mapping.
    pub first_p2m_pfn: Pfn,
    /// Frames of the p2m, if it is not in the initial mapping.
    pub nr_p2m_frames: u64,
}
assert_layout!(
    StartInfo, 1168,
    nr_pages: 32, shared_info: 40, flags: 48, store_mfn: 56, store_evtchn: 64, console: 72, pt_base: 88,
    nr_pt_frames: 96, mfn_list: 104, mod_start: 112, mod_len: 120, cmd_line: 128, first_p2m_pfn: 1152,
    nr_p2m_frames: 1160,
);

/// A domU's console, `start_info.console.domU`. dom0 has other contents here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartInfoConsole {
    /// Frame of the console's ring.
    pub mfn: Mfn,
    /// Port of the console's ring.
    pub evtchn: Port,
}
assert_layout!(StartInfoConsole, 16, mfn: 0, evtchn: 8);
