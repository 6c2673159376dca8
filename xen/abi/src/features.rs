//! `public/features.h`: features that Xen offers, numbered as bits of its feature maps.

/// Number of 32-bit maps that Xen has.
pub const XENFEAT_NR_SUBMAPS: u32 = 1;

open_enum! {
    /// A feature, `XENFEAT_*`.
    pub struct Feature: u32 {
        /// Page tables need not be write-protected.
        WRITABLE_PAGE_TABLES = 0;
        /// Descriptor tables need not be write-protected.
        WRITABLE_DESCRIPTOR_TABLES = 1;
        /// Xen translates the guest's frame numbers.
        AUTO_TRANSLATED_PHYSMAP = 2;
        /// The guest's kernel runs in ring 0.
        SUPERVISOR_MODE_KERNEL = 3;
        /// Page directories may lie above 4 GiB.
        PAE_PGDIR_ABOVE_4GB = 4;
        /// `MMU_PT_UPDATE_PRESERVE_AD` works.
        MMU_PT_UPDATE_PRESERVE_AD = 5;
        /// `MMUEXT_CLEAR_PAGE` and `MMUEXT_COPY_PAGE` work.
        HIGHMEM_ASSIST = 6;
        /// A grant's mapping may set the available bits of its entry.
        GNTTAB_MAP_AVAIL_BITS = 7;
        /// Only for HVM guests.
        HVM_CALLBACK_VECTOR = 8;
        /// Only for HVM guests.
        HVM_SAFE_PVCLOCK = 9;
        /// Only for HVM guests.
        HVM_PIRQS = 10;
        /// The guest may be dom0.
        DOM0 = 11;
        /// A memory operation may name a virtual node.
        MEMORY_OP_VNODE_SUPPORTED = 13;
        /// Only on Arm.
        ARM_SMCCC_SUPPORTED = 14;
        /// Only for PVH guests.
        LINUX_RSDP_UNRESTRICTED = 15;
        /// gfn and mfn differ.
        NOT_DIRECT_MAPPED = 16;
        /// gfn and mfn are equal.
        DIRECT_MAPPED = 17;
    }
}
