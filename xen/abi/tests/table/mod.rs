//! The items to compare.

use crate::{Check, Rule};
use std::mem::offset_of;
use xen_abi::arch_x86::*;
use xen_abi::callback::*;
use xen_abi::elfnote::*;
use xen_abi::event_channel::*;
use xen_abi::features::*;
use xen_abi::grant_table::*;
use xen_abi::io::console::*;
use xen_abi::io::netif::*;
use xen_abi::io::ring::*;
use xen_abi::io::xenbus::*;
use xen_abi::io::xs_wire::*;
use xen_abi::memory::*;
use xen_abi::sched::*;
use xen_abi::vcpu::*;
use xen_abi::version::*;
use xen_abi::xen::*;
use xen_abi::{DomId, Errno, GrantRef, PAGE_SIZE, Port};

/// A constant: the C expression and the Rust one.
macro_rules! value {
    ($checks:ident, $c:expr, $rust:expr) => {
        value!($checks, Same, $c, $rust)
    };
    ($checks:ident, $rule:ident, $c:expr, $rust:expr) => {
        // Through i128, so that a negative number is converted to unsigned as in C.
        $checks.push(Check { c: $c.to_string(), rust: ($rust) as i128 as u64, rule: Rule::$rule })
    };
}

/// An open enum: each named value, with the C name that `$c_name` makes of its name.
macro_rules! numbers {
    ($checks:ident, $type:ty, $c_name:expr) => {
        for (name, value) in <$type>::NAMED {
            value!($checks, $c_name(name), value.0);
        }
    };
}

/// Flags: each named one, with the C name that `$c_name` makes of its name.
macro_rules! flags {
    ($checks:ident, $type:ty, $c_name:expr) => {
        for flag in <$type as bitflags::Flags>::FLAGS {
            value!($checks, $c_name(flag.name()), flag.value().bits());
        }
    };
}

/// A structure: its size, and offset and size of each field. A field whose name differs in C is
/// followed by that name. `AtLeast` is for a structure at the start of a shared page, which newer
/// headers may end with further fields.
macro_rules! layout {
    ($checks:ident, $c:literal, $type:ty { $($fields:tt)* }) => {
        layout!($checks, Same, $c, $type { $($fields)* })
    };
    ($checks:ident, $rule:ident, $c:literal, $type:ty { $($field:ident $(= $c_field:literal)?),* }) => {
        value!($checks, $rule, format!("sizeof({})", $c), size_of::<$type>());
        $(
            let c_field = [$($c_field,)? stringify!($field)][0];
            value!($checks, format!("offsetof({}, {c_field})", $c), offset_of!($type, $field));
            let size = size_of_field(|structure: &$type| &structure.$field);
            value!($checks, format!("sizeof((({} *)0)->{c_field})", $c), size);
        )*
    };
}

fn size_of_field<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// The C name is `prefix` and the name as it is.
fn upper(prefix: &str) -> impl Fn(&str) -> String {
    move |name| format!("{prefix}{name}")
}

/// The C name is `prefix` and the name in small letters.
fn lower(prefix: &str) -> impl Fn(&str) -> String {
    move |name| format!("{prefix}{}", name.to_lowercase())
}

/// The C name is `prefix` and the name's words, each with a capital.
fn camel(prefix: &str) -> impl Fn(&str) -> String {
    move |name| {
        let words = name.split('_').map(|word| word[..1].to_string() + &word[1..].to_lowercase());
        prefix.to_string() + &words.collect::<String>()
    }
}

/// Every item of the crate.
pub fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    xen(&mut checks);
    arch_x86(&mut checks);
    event_channel(&mut checks);
    grant_table(&mut checks);
    memory(&mut checks);
    sched_and_vcpu(&mut checks);
    callback_and_version(&mut checks);
    console_and_xenbus(&mut checks);
    netif(&mut checks);
    xs_wire(&mut checks);
    checks
}

fn xen(checks: &mut Vec<Check>) {
    numbers!(checks, Errno, upper("XEN_"));
    numbers!(checks, Hypercall, lower("__HYPERVISOR_"));
    numbers!(checks, Virq, upper("VIRQ_"));
    numbers!(checks, MmuCommand, upper("MMU_"));
    numbers!(checks, MmuextCmd, upper("MMUEXT_"));
    numbers!(checks, ConsoleIo, lower("CONSOLEIO_"));
    numbers!(checks, VmAssistCmd, lower("VMASST_CMD_"));
    numbers!(checks, VmAssistType, |name: &str| lower("VMASST_TYPE_")(&name.replace("FOUR_GB", "4GB")));
    flags!(checks, UvmFlags, upper("UVMF_"));
    flags!(checks, PvclockFlags, upper("XEN_PVCLOCK_"));
    flags!(checks, SifFlags, upper("SIF_"));

    value!(checks, "NR_VIRQS", NR_VIRQS);
    value!(checks, "DOMID_FIRST_RESERVED", DomId::FIRST_RESERVED.0);
    value!(checks, "DOMID_SELF", DomId::SELF.0);
    value!(checks, "DOMID_IO", DomId::IO.0);
    value!(checks, "DOMID_XEN", DomId::XEN.0);
    value!(checks, "DOMID_COW", DomId::COW.0);
    value!(checks, "DOMID_INVALID", DomId::INVALID.0);
    value!(checks, IfDefined, "DOMID_ANY", DomId::ANY.0);
    value!(checks, "DOMID_IDLE", DomId::IDLE.0);
    value!(checks, "sizeof(domid_t)", size_of::<DomId>());
    value!(checks, "MAX_GUEST_CMDLINE", MAX_GUEST_CMDLINE);

    layout!(checks, "struct mmu_update", MmuUpdate { ptr, val });
    layout!(checks, "struct mmuext_op", MmuextOp { cmd, arg1, arg2 });
    layout!(checks, "struct multicall_entry", MulticallEntry { op, result, args });
    layout!(
        checks,
        "struct vcpu_time_info",
        VcpuTimeInfo { version, pad0, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags, pad1 }
    );
    layout!(
        checks,
        "struct vcpu_info",
        VcpuInfo { evtchn_upcall_pending, evtchn_upcall_mask, evtchn_pending_sel, arch, time }
    );
    layout!(
        checks,
        "struct shared_info",
        SharedInfo { vcpu_info, evtchn_pending, evtchn_mask, wc_version, wc_sec, wc_nsec, wc_sec_hi, arch }
    );
    layout!(
        checks,
        "struct start_info",
        StartInfo {
            magic,
            nr_pages,
            shared_info,
            flags,
            store_mfn,
            store_evtchn,
            console,
            pt_base,
            nr_pt_frames,
            mfn_list,
            mod_start,
            mod_len,
            cmd_line,
            first_p2m_pfn,
            nr_p2m_frames
        }
    );
    let console = offset_of!(StartInfo, console);
    value!(checks, "offsetof(struct start_info, console.domU.mfn)", console + offset_of!(StartInfoConsole, mfn));
    value!(checks, "offsetof(struct start_info, console.domU.evtchn)", console + offset_of!(StartInfoConsole, evtchn));
}

fn arch_x86(checks: &mut Vec<Check>) {
    numbers!(checks, SegmentBase, upper("SEGBASE_"));
    flags!(checks, VgcfFlags, lower("VGCF_"));

    value!(checks, "XEN_LEGACY_MAX_VCPUS", XEN_LEGACY_MAX_VCPUS);
    value!(checks, "FLAT_RING3_CS64", FLAT_RING3_CS64);
    value!(checks, "FLAT_RING3_SS64", FLAT_RING3_SS64);
    value!(checks, "FLAT_RING3_DS64", FLAT_RING3_DS64);
    value!(checks, "FLAT_KERNEL_CS", FLAT_KERNEL_CS);
    value!(checks, "FLAT_KERNEL_SS", FLAT_KERNEL_SS);
    value!(checks, "FLAT_KERNEL_DS", FLAT_KERNEL_DS);
    value!(checks, "FLAT_USER_CS", FLAT_USER_CS);
    value!(checks, "FLAT_USER_SS", FLAT_USER_SS);
    value!(checks, "FLAT_USER_DS", FLAT_USER_DS);
    value!(checks, "HYPERVISOR_VIRT_START", HYPERVISOR_VIRT_START);
    value!(checks, "HYPERVISOR_VIRT_END", HYPERVISOR_VIRT_END);
    value!(checks, "MACH2PHYS_VIRT_START", MACH2PHYS_VIRT_START);
    value!(checks, "MACH2PHYS_VIRT_END", MACH2PHYS_VIRT_END);
    value!(checks, "MACH2PHYS_NR_ENTRIES", MACH2PHYS_NR_ENTRIES);
    value!(checks, "({ struct trap_info t = { 0 }; TI_SET_IF(&t, 1); t.flags; })", TrapInfo::MASK_EVENTS);

    layout!(checks, "struct trap_info", TrapInfo { vector, flags, cs, address });
    layout!(checks, "struct iret_context", IretContext { rax, r11, rcx, flags, rip, cs, rflags, rsp, ss });
    layout!(checks, "struct arch_vcpu_info", ArchVcpuInfo { cr2, pad });
    layout!(
        checks,
        "struct arch_shared_info",
        ArchSharedInfo { max_pfn, pfn_to_mfn_frame_list_list, nmi_reason, p2m_cr3, p2m_vaddr, p2m_generation }
    );
}

fn event_channel(checks: &mut Vec<Check>) {
    numbers!(checks, EventChannelOp, lower("EVTCHNOP_"));
    numbers!(checks, EvtchnStat, lower("EVTCHNSTAT_"));
    value!(checks, "EVTCHN_2L_NR_CHANNELS", EVTCHN_2L_NR_CHANNELS);
    value!(checks, "sizeof(evtchn_port_t)", size_of::<Port>());

    layout!(checks, "struct evtchn_alloc_unbound", EvtchnAllocUnbound { dom, remote_dom, port });
    layout!(checks, "struct evtchn_bind_interdomain", EvtchnBindInterdomain { remote_dom, remote_port, local_port });
    layout!(checks, "struct evtchn_bind_virq", EvtchnBindVirq { virq, vcpu, port });
    layout!(checks, "struct evtchn_bind_ipi", EvtchnBindIpi { vcpu, port });
    layout!(checks, "struct evtchn_close", EvtchnClose { port });
    layout!(checks, "struct evtchn_send", EvtchnSend { port });
    layout!(checks, "struct evtchn_bind_vcpu", EvtchnBindVcpu { port, vcpu });
    layout!(checks, "struct evtchn_unmask", EvtchnUnmask { port });
    layout!(checks, "struct evtchn_reset", EvtchnReset { dom });
    layout!(checks, "struct evtchn_status", EvtchnStatus { dom, port, status, vcpu, u });
    let u = offset_of!(EvtchnStatus, u);
    value!(checks, "offsetof(struct evtchn_status, u.unbound.dom)", u);
    value!(checks, "offsetof(struct evtchn_status, u.interdomain.dom)", u);
    value!(checks, "offsetof(struct evtchn_status, u.interdomain.port)", u + size_of::<u32>());
    value!(checks, "offsetof(struct evtchn_status, u.pirq)", u);
    value!(checks, "offsetof(struct evtchn_status, u.virq)", u);
}

fn grant_table(checks: &mut Vec<Check>) {
    numbers!(checks, GrantTableOp, lower("GNTTABOP_"));
    numbers!(checks, GrantStatus, lower("GNTST_"));
    flags!(checks, GrantFlags, |name: &str| match name {
        "PWT" | "PCD" | "PAT" => upper("GTF_")(name),
        _ => lower("GTF_")(name),
    });
    flags!(checks, GntmapFlags, lower("GNTMAP_"));
    flags!(checks, GntcopyFlags, lower("GNTCOPY_"));
    value!(checks, "GNTTAB_RESERVED_CONSOLE", GrantRef::CONSOLE.0);
    value!(checks, "GNTTAB_RESERVED_XENSTORE", GrantRef::XENSTORE.0);
    value!(checks, "GNTTAB_NR_RESERVED_ENTRIES", GrantRef::FIRST_FREE.0);
    value!(checks, "sizeof(grant_handle_t)", size_of::<GrantHandle>());

    layout!(checks, "struct grant_entry_v1", GrantEntryV1 { flags, domid, frame });
    layout!(checks, "struct gnttab_map_grant_ref", GnttabMapGrantRef {
        host_addr, flags, gref = "ref", dom, status, handle, dev_bus_addr
    });
    layout!(checks, "struct gnttab_unmap_grant_ref", GnttabUnmapGrantRef { host_addr, dev_bus_addr, handle, status });
    layout!(checks, "struct gnttab_setup_table", GnttabSetupTable { dom, nr_frames, status, frame_list });
    layout!(checks, "struct gnttab_query_size", GnttabQuerySize { dom, nr_frames, max_nr_frames, status });
    layout!(checks, "struct gnttab_copy_ptr", GnttabCopyPtr { u, domid, offset });
    layout!(checks, "struct gnttab_copy", GnttabCopy { source, dest, len, flags, status });
}

fn memory(checks: &mut Vec<Check>) {
    numbers!(checks, MemoryOp, lower("XENMEM_"));
    layout!(
        checks,
        "struct xen_memory_reservation",
        MemoryReservation { extent_start, nr_extents, extent_order, mem_flags, domid }
    );
    layout!(checks, "struct xen_memory_domain", MemoryDomain { domid });
    layout!(checks, "struct xen_machphys_mapping", MachphysMapping { v_start, v_end, max_mfn });
    layout!(checks, "struct xen_memory_map", MemoryMap { nr_entries, buffer });
}

fn sched_and_vcpu(checks: &mut Vec<Check>) {
    numbers!(checks, SchedOp, lower("SCHEDOP_"));
    numbers!(checks, ShutdownReason, lower("SHUTDOWN_"));
    layout!(checks, "struct sched_shutdown", SchedShutdown { reason });
    layout!(checks, "struct sched_poll", SchedPoll { ports, nr_ports, timeout });
    layout!(checks, "struct sched_watchdog", SchedWatchdog { id, timeout });

    numbers!(checks, VcpuOp, lower("VCPUOP_"));
    numbers!(checks, Runstate, lower("RUNSTATE_"));
    flags!(checks, SshottmrFlags, lower("VCPU_SSHOTTMR_"));
    layout!(checks, "struct vcpu_runstate_info", VcpuRunstateInfo { state, state_entry_time, time });
    layout!(checks, "struct vcpu_set_periodic_timer", VcpuSetPeriodicTimer { period_ns });
    layout!(checks, "struct vcpu_set_singleshot_timer", VcpuSetSingleshotTimer { timeout_abs_ns, flags });
    layout!(checks, "struct vcpu_register_vcpu_info", VcpuRegisterVcpuInfo { mfn, offset, rsvd });
}

fn callback_and_version(checks: &mut Vec<Check>) {
    numbers!(checks, CallbackOp, lower("CALLBACKOP_"));
    numbers!(checks, CallbackType, lower("CALLBACKTYPE_"));
    flags!(checks, CallbackFlags, lower("CALLBACKF_"));
    layout!(checks, "struct callback_register", CallbackRegister { kind = "type", flags, address });
    layout!(checks, "struct callback_unregister", CallbackUnregister { kind = "type", unused = "_unused" });

    numbers!(checks, XenVersionOp, lower("XENVER_"));
    value!(checks, "sizeof(xen_extraversion_t)", size_of::<Extraversion>());
    layout!(checks, "struct xen_feature_info", FeatureInfo { submap_idx, submap });
    numbers!(checks, Feature, |name: &str| match name {
        "ARM_SMCCC_SUPPORTED" => "XENFEAT_ARM_SMCCC_supported".to_string(),
        _ => lower("XENFEAT_")(name),
    });
    value!(checks, "XENFEAT_NR_SUBMAPS", XENFEAT_NR_SUBMAPS);
    numbers!(checks, ElfNote, upper("XEN_ELFNOTE_"));
}

fn console_and_xenbus(checks: &mut Vec<Check>) {
    layout!(checks, AtLeast, "struct xencons_interface", XenconsInterface {
        r#in = "in", out, in_cons, in_prod, out_cons, out_prod
    });
    value!(checks, "sizeof(((struct xencons_interface *)0)->in)", XENCONS_IN_SIZE);
    value!(checks, "sizeof(((struct xencons_interface *)0)->out)", XENCONS_OUT_SIZE);
    numbers!(checks, XenbusState, camel("XenbusState"));
}

fn netif(checks: &mut Vec<Check>) {
    numbers!(checks, NetifStatus, upper("NETIF_RSP_"));
    numbers!(checks, NetifExtraType, upper("XEN_NETIF_EXTRA_TYPE_"));
    numbers!(checks, NetifGsoType, upper("XEN_NETIF_GSO_TYPE_"));
    flags!(checks, NettxFlags, lower("NETTXF_"));
    flags!(checks, NetrxFlags, lower("NETRXF_"));
    flags!(checks, NetifExtraFlags, upper("XEN_NETIF_EXTRA_FLAG_"));
    value!(checks, "XEN_NETIF_MAX_TX_SIZE", XEN_NETIF_MAX_TX_SIZE);
    value!(checks, "XEN_NETIF_NR_SLOTS_MIN", XEN_NETIF_NR_SLOTS_MIN);
    value!(checks, format!("__CONST_RING_SIZE(netif_tx, {PAGE_SIZE})"), NETIF_TX_RING_SIZE);
    value!(checks, format!("__CONST_RING_SIZE(netif_rx, {PAGE_SIZE})"), NETIF_RX_RING_SIZE);

    layout!(checks, "struct netif_tx_request", NetifTxRequest { gref, offset, flags, id, size });
    layout!(checks, "struct netif_tx_response", NetifTxResponse { id, status });
    layout!(checks, "struct netif_rx_request", NetifRxRequest { id, pad, gref });
    layout!(checks, "struct netif_rx_response", NetifRxResponse { id, offset, flags, status });
    layout!(checks, "struct netif_extra_info", NetifExtraInfo { kind = "type", flags, u });

    // The page of a ring; `Sring` is its part before the slots.
    value!(checks, "sizeof(RING_IDX)", size_of::<RingIndex>());
    value!(checks, "offsetof(struct netif_tx_sring, req_prod)", offset_of!(Sring, req_prod));
    value!(checks, "offsetof(struct netif_tx_sring, req_event)", offset_of!(Sring, req_event));
    value!(checks, "offsetof(struct netif_tx_sring, rsp_prod)", offset_of!(Sring, rsp_prod));
    value!(checks, "offsetof(struct netif_tx_sring, rsp_event)", offset_of!(Sring, rsp_event));
    value!(checks, "offsetof(struct netif_tx_sring, pvt)", offset_of!(Sring, pvt));
    value!(checks, "offsetof(struct netif_tx_sring, __pad)", offset_of!(Sring, pad));
    value!(checks, "offsetof(struct netif_tx_sring, ring)", size_of::<Sring>());
}

fn xs_wire(checks: &mut Vec<Check>) {
    numbers!(checks, XsType, upper("XS_"));
    numbers!(checks, Connection, upper("XENSTORE_"));
    numbers!(checks, RingError, upper("XENSTORE_ERROR_"));
    flags!(checks, ServerFeatures, upper("XENSTORE_SERVER_FEATURE_"));
    value!(checks, "XENSTORE_RING_SIZE", XENSTORE_RING_SIZE);
    value!(checks, "XENSTORE_PAYLOAD_MAX", XENSTORE_PAYLOAD_MAX);
    value!(checks, "XENSTORE_ABS_PATH_MAX", XENSTORE_ABS_PATH_MAX);
    value!(checks, "XENSTORE_REL_PATH_MAX", XENSTORE_REL_PATH_MAX);
    layout!(
        checks,
        AtLeast,
        "struct xenstore_domain_interface",
        XenstoreDomainInterface {
            req,
            rsp,
            req_cons,
            req_prod,
            rsp_cons,
            rsp_prod,
            server_features,
            connection,
            error
        }
    );

    // A header, octet by octet.
    value!(checks, "sizeof(struct xsd_sockmsg)", Header::SIZE);
    let header = Header::new(XsType::WATCH, 0x0102_0304, 0x0506_0708, 0x0910).unwrap();
    for (i, octet) in header.encode().into_iter().enumerate() {
        let message =
            "(struct xsd_sockmsg){ .type = XS_WATCH, .req_id = 0x01020304, .tx_id = 0x05060708, .len = 0x0910 }";
        value!(checks, format!("((unsigned char *)&{message})[{i}]"), octet);
    }
}
