//! `public/elfnote.h`: types of the ELF notes, named "Xen", that describe an image to the domain
//! builder.

open_enum! {
    /// An ELF note's type, `XEN_ELFNOTE_*`.
    pub struct ElfNote: u32 {
        /// Free text.
        INFO = 0;
        /// vaddr of the first instruction.
        ENTRY = 1;
        /// vaddr of the page that Xen fills with hypercall stubs.
        HYPERCALL_PAGE = 2;
        /// vaddr of pfn 0.
        VIRT_BASE = 3;
        /// The number to subtract from the ELF file's physical addresses.
        PADDR_OFFSET = 4;
        /// The interface: `xen-3.0`.
        XEN_VERSION = 5;
        GUEST_OS = 6;
        GUEST_VERSION = 7;
        /// `generic`.
        LOADER = 8;
        /// `yes`.
        PAE_MODE = 9;
        /// Features that the guest can deal with, or needs, as text.
        FEATURES = 10;
        BSD_SYMTAB = 11;
        /// Lowest vaddr at which Xen may begin.
        HV_START_LOW = 12;
        /// The mask and value that mark the mfn of a level-1 entry as valid.
        L1_MFN_VALID = 13;
        /// 1: the guest understands that a suspend was cancelled.
        SUSPEND_CANCEL = 14;
        /// vaddr at which the p2m is to be mapped.
        INIT_P2M = 15;
        /// 1: the module need not be mapped.
        MOD_START_PFN = 16;
        /// Features that the guest can deal with, as a number.
        SUPPORTED_FEATURES = 17;
        PHYS32_ENTRY = 18;
    }
}
