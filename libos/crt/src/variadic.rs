//! Functions with a variable number of arguments, which Rust can call but not define (System V ABI,
//! AMD64 supplement, 3.5.7).

use core::arch::asm;

/// `va_list`: an array of one of these, so that C passes a pointer to it.
#[repr(C)]
pub(crate) struct VaList {
    gp_offset: u32,
    fp_offset: u32,
    overflow_arg_area: *mut u8,
    reg_save_area: *mut u8,
}

impl VaList {
    /// The next argument of a pointer or integer type. The upper half of a narrower one is
    /// undefined.
    ///
    /// # Safety
    /// There is one, and it is of such a type.
    pub(crate) unsafe fn integer(&mut self) -> u64 {
        let place = if self.gp_offset < 48 {
            self.gp_offset += 8;
            self.reg_save_area.wrapping_add(self.gp_offset as usize - 8)
        } else {
            self.overflow(8)
        };
        // SAFETY: the caller's trampoline or compiler laid the argument there.
        unsafe { place.cast::<u64>().read() }
    }

    /// # Safety
    /// As for [`Self::integer`].
    pub(crate) unsafe fn pointer<T>(&mut self) -> *mut T {
        // SAFETY: passed on to the caller.
        core::ptr::with_exposed_provenance_mut(unsafe { self.integer() } as usize)
    }

    /// The next argument of type `double`.
    ///
    /// # Safety
    /// There is one, and it is of this type.
    pub(crate) unsafe fn double(&mut self) -> f64 {
        let place = if self.fp_offset < 176 {
            self.fp_offset += 16;
            self.reg_save_area.wrapping_add(self.fp_offset as usize - 16)
        } else {
            self.overflow(8)
        };
        // SAFETY: the caller's trampoline or compiler laid the argument there.
        unsafe { place.cast::<f64>().read() }
    }

    /// The next argument of type `long double`, rounded.
    ///
    /// # Safety
    /// There is one, and it is of this type.
    pub(crate) unsafe fn long_double(&mut self) -> f64 {
        self.overflow_arg_area = self.overflow_arg_area.map_addr(|address| address.next_multiple_of(16));
        let place = self.overflow(16);
        let mut rounded = 0.0_f64;
        // SAFETY: ten octets are read where the caller laid the argument, eight are written to the
        // variable; the x87's stack is as before.
        unsafe {
            asm!("fld tbyte ptr [{}]", "fstp qword ptr [{}]", in(reg) place, in(reg) &raw mut rounded, options(nostack),
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _);
        }
        rounded
    }

    fn overflow(&mut self, size: usize) -> *mut u8 {
        let place = self.overflow_arg_area;
        self.overflow_arg_area = place.wrapping_add(size);
        place
    }
}

/// `name(named arguments) => target`: a function that lays out its arguments as the ABI's
/// `va_start` would, and calls the target with its named arguments and the list. Nothing below the
/// stack pointer is used.
macro_rules! variadic {
    ($($name:ident($named:tt) => $target:path),* $(,)?) => {$(
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "sub rsp, 208",
                "mov [rsp + 32], rdi",
                "mov [rsp + 40], rsi",
                "mov [rsp + 48], rdx",
                "mov [rsp + 56], rcx",
                "mov [rsp + 64], r8",
                "mov [rsp + 72], r9",
                // The caller sets al to the number of vector registers that it used.
                "test al, al",
                "jz 2f",
                "movaps [rsp + 80], xmm0",
                "movaps [rsp + 96], xmm1",
                "movaps [rsp + 112], xmm2",
                "movaps [rsp + 128], xmm3",
                "movaps [rsp + 144], xmm4",
                "movaps [rsp + 160], xmm5",
                "movaps [rsp + 176], xmm6",
                "movaps [rsp + 192], xmm7",
                "2:",
                concat!("mov dword ptr [rsp], 8 * ", $named),
                "mov dword ptr [rsp + 4], 48",
                "lea rax, [rbp + 16]",
                "mov [rsp + 8], rax",
                "lea rax, [rsp + 32]",
                "mov [rsp + 16], rax",
                variadic!(@ $named),
                "call {target}",
                "leave",
                "ret",
                target = sym $target,
            )
        }
    )*};
    (@ 1) => { "mov rsi, rsp" };
    (@ 2) => { "mov rdx, rsp" };
    (@ 3) => { "mov rcx, rsp" };
    (@ 4) => { "mov r8, rsp" };
    (@ 5) => { "mov r9, rsp" };
}
