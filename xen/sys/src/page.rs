//! The hypercall page, and the only place where the guest enters Xen on purpose.

use core::arch::asm;
use xen_abi::Errno;
use xen_abi::xen::Hypercall;

/// Bytes of each entry of the hypercall page (`public/arch-x86/xen-x86_64.h`).
pub const HYPERCALL_ENTRY_SIZE: usize = 32;

/// Offset in the hypercall page to which assembly jumps for `iret`, with an
/// [`IretContext`](xen_abi::arch_x86::IretContext) on the stack.
pub const IRET_OFFSET: usize = Hypercall::IRET.0 as usize * HYPERCALL_ENTRY_SIZE;

// The domain builder fills the page that the ELF note HYPERCALL_PAGE names. Until then every entry
// traps (int3).
#[cfg(not(test))]
core::arch::global_asm!(
    ".pushsection .hypercall_page, \"ax\", @progbits",
    ".balign 4096",
    ".globl hypercall_page",
    ".type hypercall_page, @function",
    "hypercall_page:",
    ".fill 4096, 1, 0xcc",
    ".size hypercall_page, . - hypercall_page",
    ".popsection",
);

unsafe extern "C" {
    /// The hypercall page: entry `n`, at `n *` [`HYPERCALL_ENTRY_SIZE`], makes hypercall number
    /// `n`.
    ///
    /// It is declared for its address, which the image's ELF note and the kernel's assembly need.
    /// It is never read or called.
    pub static hypercall_page: [u8; 4096];
}

/// Makes hypercall `NR` with five arguments, in rdi, rsi, rdx, r10 and r8. Xen may change these,
/// rcx and r11; the result comes in rax. The entry pushes two words, and Xen may read and write
/// memory, so the assembly is neither `nostack` nor `nomem`.
///
/// Hypercalls with fewer arguments pass zeros: five register moves cost nothing beside a trap.
///
/// # Safety
/// The caller answers for all effects of this hypercall. Pointers among the arguments must be valid
/// for Xen's reads and writes, and no effect may break the assumptions of Rust code.
#[inline(always)]
pub(crate) unsafe fn hypercall<const NR: u32>(args: [u64; 5]) -> Result<u64, Errno> {
    let result: i64;
    // SAFETY: (1) the entry is code that Xen provides and it returns with the stack as it was; (2)
    // every register that the interface lets Xen change is an output or clobber; (3) the
    // effects of the hypercall itself are the caller's duty.
    unsafe {
        asm!(
            "call {page} + {nr} * {entry_size}",
            page = sym hypercall_page,
            nr = const NR,
            entry_size = const HYPERCALL_ENTRY_SIZE,
            inlateout("rdi") args[0] => _,
            inlateout("rsi") args[1] => _,
            inlateout("rdx") args[2] => _,
            inlateout("r10") args[3] => _,
            inlateout("r8") args[4] => _,
            lateout("rax") result,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    Errno::check(result)
}

/// The address of an argument that Xen only reads.
pub(crate) fn input<T: ?Sized>(argument: &T) -> u64 {
    core::ptr::from_ref(argument).expose_provenance() as u64
}

/// The address of an argument that Xen may also write.
pub(crate) fn inout<T: ?Sized>(argument: &mut T) -> u64 {
    core::ptr::from_mut(argument).expose_provenance() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_xen::with_xen;

    #[test]
    fn arguments_and_result_are_where_xen_has_them() {
        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::XENPMU_OP);
                assert_eq!(call.args, [1, 2, 3, 4, u64::MAX]);
                0x1_2345_6789
            },
            // SAFETY: the test plays Xen.
            || unsafe { hypercall::<{ Hypercall::XENPMU_OP.0 }>([1, 2, 3, 4, u64::MAX]) },
        );
        assert_eq!(result, Ok(0x1_2345_6789));
    }

    #[test]
    fn a_negative_result_is_an_error() {
        // SAFETY: the test plays Xen.
        let result = with_xen(|_| -22, || unsafe { hypercall::<0>([0; 5]) });
        assert_eq!(result, Err(Errno::EINVAL));
    }

    #[test]
    fn the_page_is_aligned() {
        assert_eq!((&raw const hypercall_page).addr() % 4096, 0);
    }
}
