//! Hypercalls of a 64-bit Xen PV guest: the hypercall page, and one typed function per operation,
//! named after the ABI.
//!
//! The functions follow Xen's interface and add nothing: they keep no state and make no policy. An
//! operation that can break memory safety (page tables, traps, stacks, mappings) is `unsafe`; one
//! that cannot is safe. Every error is the errno that Xen returned.
//!
//! The image's linker script places section `.hypercall_page`, and its ELF note names
//! [`hypercall_page`]. The `iret` hypercall has no function, because it takes its arguments on the
//! stack and does not return: assembly jumps to `hypercall_page +` [`IRET_OFFSET`].

#![no_std]

mod cpu;
mod event_channel;
#[cfg(test)]
mod fake_xen;
mod grant_table;
mod memory;
mod mmu;
mod page;
mod sched;
mod system;
mod vcpu;

pub use cpu::{callback_op_register, set_segment_base, set_trap_table, stack_switch};
pub use event_channel::{
    event_channel_op_alloc_unbound, event_channel_op_bind_interdomain, event_channel_op_bind_virq,
    event_channel_op_close, event_channel_op_send, event_channel_op_status, event_channel_op_unmask,
};
pub use grant_table::{
    GrantTableError, grant_table_op_copy, grant_table_op_map_grant_ref, grant_table_op_query_size,
    grant_table_op_setup_table, grant_table_op_unmap_grant_ref,
};
pub use memory::{
    memory_op_current_reservation, memory_op_decrease_reservation, memory_op_machphys_mapping,
    memory_op_maximum_reservation, memory_op_memory_map, memory_op_populate_physmap,
};
pub use mmu::{mmu_update, mmuext_op, update_va_mapping};
pub use page::{HYPERCALL_ENTRY_SIZE, IRET_OFFSET, hypercall_page};
pub use sched::{sched_op_block, sched_op_poll, sched_op_shutdown, sched_op_suspend, sched_op_yield};
pub use system::{
    console_io_read, console_io_write, multicall, set_timer_op, vm_assist, xen_version_extraversion,
    xen_version_get_features, xen_version_version,
};
pub use vcpu::{
    vcpu_op_is_up, vcpu_op_register_vcpu_info, vcpu_op_set_singleshot_timer, vcpu_op_stop_periodic_timer,
    vcpu_op_stop_singleshot_timer,
};
