//! Frame numbers. A PV guest has two kinds that must never be mixed up, so they are distinct types.

/// Bytes in a page, and in a frame.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

macro_rules! frame_number {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The address of the frame's first byte.
            #[must_use]
            pub const fn addr(self) -> u64 {
                self.0 << PAGE_SHIFT
            }

            /// The frame that holds the byte at `addr`.
            #[must_use]
            pub const fn containing(addr: u64) -> Self {
                Self(addr >> PAGE_SHIFT)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

frame_number! {
    /// The guest's own linear frame number, 0 to its number of pages - 1. Its address is a paddr.
    Pfn
}

frame_number! {
    /// A machine frame number, as a PV guest's page table holds it. Its address is a maddr.
    Mfn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_frame() {
        assert_eq!(Mfn(3).addr(), 0x3000);
        assert_eq!(Mfn::containing(0x3fff), Mfn(3));
        assert_eq!(Pfn::containing(0x4000), Pfn(4));
    }
}
