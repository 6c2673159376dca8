//! The state of a vcpu in the form that Xen loads and saves for the tools: `struct
//! vcpu_guest_context` of public/arch-x86/xen.h, for a 64-bit PV guest.

use xen_abi::Mfn;
use xen_abi::arch_x86::{TrapInfo, VgcfFlags};

use crate::control::{u16_at, u64_at};

/// Octets of `struct vcpu_guest_context`.
pub const SIZE: usize = 5168;
/// Entries of the trap table.
pub const TRAPS: usize = 256;

/// The registers of a vcpu, `struct cpu_user_regs` of public/arch-x86/xen-x86_64.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserRegs {
    /// Register r15.
    pub r15: u64,
    /// Register r14.
    pub r14: u64,
    /// Register r13.
    pub r13: u64,
    /// Register r12.
    pub r12: u64,
    /// Register rbp.
    pub rbp: u64,
    /// Register rbx.
    pub rbx: u64,
    /// Register r11.
    pub r11: u64,
    /// Register r10.
    pub r10: u64,
    /// Register r9.
    pub r9: u64,
    /// Register r8.
    pub r8: u64,
    /// Register rax.
    pub rax: u64,
    /// Register rcx.
    pub rcx: u64,
    /// Register rdx.
    pub rdx: u64,
    /// Register rsi.
    pub rsi: u64,
    /// Register rdi.
    pub rdi: u64,
    /// Xen's own; 0 from 4.21 on.
    pub error_code: u32,
    /// Xen's own; 0 from 4.21 on.
    pub entry_vector: u32,
    /// Register rip.
    pub rip: u64,
    /// Xen sets ring 3 if it is another; a kernel's selector is 0xe033.
    pub cs: u16,
    /// Event mask (`vcpu_info.evtchn_upcall_mask`) to be restored with the registers; 0
    /// from 4.21 on.
    pub saved_upcall_mask: u8,
    /// Flags.
    pub rflags: u64,
    /// Register rsp.
    pub rsp: u64,
    /// A kernel's selector is 0xe02b.
    pub ss: u16,
    /// Selector in es.
    pub es: u16,
    /// Selector in ds.
    pub ds: u16,
    /// Selector in fs.
    pub fs: u16,
    /// Selector in gs.
    pub gs: u16,
}

/// The state of a vcpu, `struct vcpu_guest_context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuGuestContext {
    /// The image of `fxsave`. All zeros is a state that can be loaded only without
    /// [`VgcfFlags::I387_VALID`]. Then a new vcpu begins with the x87's state after `fninit` on Xen
    /// 4.17 to 4.19, and with that after a reset from 4.20 on: the guest itself says `fninit`.
    pub fpu_ctxt: [u8; 512],
    /// [`VgcfFlags::IN_KERNEL`] and [`VgcfFlags::ONLINE`] for a new vcpu that is to run kernel
    /// code.
    pub flags: VgcfFlags,
    /// General registers.
    pub user_regs: UserRegs,
    /// Handlers by vector. Xen reads those with an address.
    pub trap_ctxt: [TrapInfo; TRAPS],
    /// vaddr of the local descriptor table.
    pub ldt_base: u64,
    /// Entries of the local descriptor table.
    pub ldt_ents: u64,
    /// Frames of the global descriptor table. None are needed, because Xen has flat segments.
    pub gdt_frames: [Mfn; 16],
    /// Entries of the global descriptor table.
    pub gdt_ents: u64,
    /// Stack segment for entries from guest user mode.
    pub kernel_ss: u64,
    /// Stack pointer for entries from guest user mode.
    pub kernel_sp: u64,
    /// cr0 to cr7; 3 is that of guest kernel mode (see [`cr3`](Self::cr3)), 1 that of guest user
    /// mode.
    pub ctrlreg: [u64; 8],
    /// dr0 to dr7. From 4.18 on, dr6 and dr7 of more than 32 bits are refused with `EINVAL`.
    pub debugreg: [u64; 8],
    /// vaddr of the handler of events.
    pub event_callback_eip: u64,
    /// vaddr of the handler of a return to the guest that failed.
    pub failsafe_callback_eip: u64,
    /// vaddr of the handler of `syscall`.
    pub syscall_callback_eip: u64,
    /// A bit per `VMASST_TYPE_*`.
    pub vm_assist: u64,
    /// Base of fs.
    pub fs_base: u64,
    /// Base of gs in guest kernel mode.
    pub gs_base_kernel: u64,
    /// Base of gs in guest user mode.
    pub gs_base_user: u64,
}

impl VcpuGuestContext {
    /// The value of cr3 for the level 4 table in the frame `l4`.
    pub const fn cr3(l4: Mfn) -> u64 {
        l4.addr()
    }
}

impl Default for VcpuGuestContext {
    fn default() -> Self {
        Self {
            fpu_ctxt: [0; 512],
            flags: VgcfFlags::empty(),
            user_regs: UserRegs::default(),
            trap_ctxt: [TrapInfo::END; TRAPS],
            ldt_base: 0,
            ldt_ents: 0,
            gdt_frames: [Mfn(0); 16],
            gdt_ents: 0,
            kernel_ss: 0,
            kernel_sp: 0,
            ctrlreg: [0; 8],
            debugreg: [0; 8],
            event_callback_eip: 0,
            failsafe_callback_eip: 0,
            syscall_callback_eip: 0,
            vm_assist: 0,
            fs_base: 0,
            gs_base_kernel: 0,
            gs_base_user: 0,
        }
    }
}

/// Offsets in the structure.
mod at {
    pub const FLAGS: usize = 512;
    pub const USER_REGS: usize = 520;
    pub const TRAP_CTXT: usize = 720;
    pub const LDT_BASE: usize = 4816;
}

impl VcpuGuestContext {
    /// The octets of the structure.
    pub(crate) fn encode(&self) -> [u8; SIZE] {
        let mut octets = [0; SIZE];
        octets[..at::FLAGS].copy_from_slice(&self.fpu_ctxt);
        octets[at::FLAGS..at::USER_REGS].copy_from_slice(&self.flags.bits().to_le_bytes());
        for (index, trap) in self.trap_ctxt.iter().enumerate() {
            let entry = &mut octets[at::TRAP_CTXT + index * size_of::<TrapInfo>()..];
            entry[0] = trap.vector;
            entry[1] = trap.flags;
            entry[2..4].copy_from_slice(&trap.cs.to_le_bytes());
            entry[8..16].copy_from_slice(&trap.address.to_le_bytes());
        }
        let mut copy = self.clone();
        copy.user_regs.each_word(|at, word| octets[at..at + 8].copy_from_slice(&word.to_le_bytes()));
        copy.each_word(|at, word| octets[at..at + 8].copy_from_slice(&word.to_le_bytes()));
        octets
    }

    /// The structure that has these octets.
    pub(crate) fn decode(octets: &[u8; SIZE]) -> Self {
        let mut context = Self {
            fpu_ctxt: *octets.first_chunk().expect("512 octets"),
            flags: VgcfFlags::from_bits_retain(u64_at(octets, at::FLAGS)),
            ..Self::default()
        };
        for (index, trap) in context.trap_ctxt.iter_mut().enumerate() {
            let entry = &octets[at::TRAP_CTXT + index * size_of::<TrapInfo>()..];
            *trap = TrapInfo { vector: entry[0], flags: entry[1], cs: u16_at(entry, 2), address: u64_at(entry, 8) };
        }
        context.user_regs.each_word(|at, word| *word = u64_at(octets, at));
        context.each_word(|at, word| *word = u64_at(octets, at));
        context
    }

    /// Calls `each` for every field from `ldt_base` on, in the structure's order, with its offset.
    fn each_word(&mut self, mut each: impl FnMut(usize, &mut u64)) {
        let words = [&mut self.ldt_base, &mut self.ldt_ents]
            .into_iter()
            .chain(self.gdt_frames.iter_mut().map(|frame| &mut frame.0))
            .chain([&mut self.gdt_ents, &mut self.kernel_ss, &mut self.kernel_sp])
            .chain(&mut self.ctrlreg)
            .chain(&mut self.debugreg)
            .chain([
                &mut self.event_callback_eip,
                &mut self.failsafe_callback_eip,
                &mut self.syscall_callback_eip,
                &mut self.vm_assist,
                &mut self.fs_base,
                &mut self.gs_base_kernel,
                &mut self.gs_base_user,
            ]);
        words.enumerate().for_each(|(index, word)| each(at::LDT_BASE + index * 8, word));
    }
}

impl UserRegs {
    /// Calls `each` for every eight octets of the structure, with their offset in `struct
    /// vcpu_guest_context`.
    fn each_word(&mut self, mut each: impl FnMut(usize, &mut u64)) {
        let mut private = u64::from(self.error_code) | u64::from(self.entry_vector) << 32;
        let mut cs = u64::from(self.cs) | u64::from(self.saved_upcall_mask) << 32;
        let mut selectors = [self.ss, self.es, self.ds, self.fs, self.gs].map(u64::from);
        let words = [
            &mut self.r15,
            &mut self.r14,
            &mut self.r13,
            &mut self.r12,
            &mut self.rbp,
            &mut self.rbx,
            &mut self.r11,
            &mut self.r10,
            &mut self.r9,
            &mut self.r8,
            &mut self.rax,
            &mut self.rcx,
            &mut self.rdx,
            &mut self.rsi,
            &mut self.rdi,
            &mut private,
            &mut self.rip,
            &mut cs,
            &mut self.rflags,
            &mut self.rsp,
        ];
        let words = words.into_iter().chain(&mut selectors);
        words.enumerate().for_each(|(index, word)| each(at::USER_REGS + index * 8, word));
        (self.error_code, self.entry_vector) = (private as u32, (private >> 32) as u32);
        (self.cs, self.saved_upcall_mask) = (cs as u16, (cs >> 32) as u8);
        [self.ss, self.es, self.ds, self.fs, self.gs] = selectors.map(|selector| selector as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_its_octets() {
        // Every octet that is no padding differs from its neighbours.
        let mut octets = [0; SIZE];
        octets.iter_mut().enumerate().for_each(|(index, octet)| *octet = (index % 251) as u8);
        let decoded = VcpuGuestContext::decode(&octets);
        let encoded = decoded.encode();
        assert_eq!(VcpuGuestContext::decode(&encoded), decoded);

        let paddings = (0..SIZE).filter(|at| encoded[*at] != octets[*at]).count();
        // Five selectors with six octets each, five beside cs and the mask, four per trap; some of
        // them happen to be 0.
        assert!((30 + 5 + 4 * TRAPS - 20..=30 + 5 + 4 * TRAPS).contains(&paddings), "{paddings}");
        assert_eq!(encoded[at::USER_REGS + 128..][..8], octets[at::USER_REGS + 128..][..8], "rip");
        assert_eq!(decoded.gs_base_user, u64_at(&octets, SIZE - 8));
    }
}
