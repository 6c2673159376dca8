//! `public/callback.h`: the entry points of the guest's kernel that Xen calls.

open_enum! {
    /// An operation of `callback_op`, `CALLBACKOP_*`.
    pub struct CallbackOp: u32 {
        REGISTER = 0;
        UNREGISTER = 1;
    }
}

open_enum! {
    /// The kind of entry point, `CALLBACKTYPE_*`.
    pub struct CallbackType: u16 {
        /// An event is pending. Events are masked on entry.
        EVENT = 0;
        /// Xen cannot restore the guest's segments.
        FAILSAFE = 1;
        /// A system call from 64-bit guest user mode.
        SYSCALL = 2;
        /// A non-maskable interrupt. Events are masked on entry.
        NMI = 4;
        /// `sysenter` from guest user mode, on Intel processors.
        SYSENTER = 5;
        /// A system call from 32-bit guest user mode, on AMD processors.
        SYSCALL32 = 7;
    }
}

bitflags::bitflags! {
    /// Flags of a callback, `CALLBACKF_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CallbackFlags: u16 {
        /// Events are masked on entry.
        const MASK_EVENTS = 1 << 0;
    }
}

/// Sets an entry point, `struct callback_register`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallbackRegister {
    /// The field `type`.
    pub kind: CallbackType,
    /// Flags for its entry.
    pub flags: CallbackFlags,
    /// vaddr of the entry.
    pub address: u64,
}
assert_layout!(CallbackRegister, 16, kind: 0, flags: 2, address: 8);

/// Removes an entry point, `struct callback_unregister`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallbackUnregister {
    /// The field `type`.
    pub kind: CallbackType,
    /// Zero.
    pub unused: u16,
}
assert_layout!(CallbackUnregister, 4, kind: 0);
