//! Compares the octets that this crate makes and reads with those of Xen's C headers: a C program,
//! compiled here, fills the structures by their fields' names and prints them. The headers are those
//! of this machine, and of other releases that `make setup` has unpacked below `build/xen-headers`.

#[path = "../../../xen/abi/tests/headers/mod.rs"]
mod headers;

use std::collections::BTreeMap;
use std::path::Path;

use headers::{includes, output_of};
use xen_abi::arch_x86::{TrapInfo, VgcfFlags};
use xen_abi::{DomId, Mfn};

use crate::control::Request;
use crate::domain::{CpuPolicy, CreateDomain, DomainInfo, SchedParams, Scheduler, TscInfo};
use crate::domctl::{self, command};
use crate::release::RELEASES;
use crate::vcpu::{UserRegs, VcpuGuestContext};
use crate::{evtchn, mapping, privcmd};

/// Prints a name and octets in hexadecimal for each of the structures. Their values are known to
/// this module too.
const PROGRAM: &str = r#"
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <xen/domctl.h>
#include <xen/memory.h>
#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>
#include <xen/sys/privcmd.h>

static void print(const char *name, const void *octets, size_t size)
{
    printf("%s ", name);
    for (size_t i = 0; i < size; i++)
        printf("%02x", ((const unsigned char *)octets)[i]);
    printf("\n");
}

static struct xen_domctl op;

/* A domain number for createdomain to choose. */
#ifdef DOMID_ANY
#define CHOOSE DOMID_ANY
#else
#define CHOOSE 0
#endif

static void *handle(size_t offset)
{
    return (void *)(0x70000000 + sizeof(op) + offset);
}

#define DOMCTL(name, command) \
    memset(&op, 0, sizeof(op)); op.cmd = command; op.interface_version = XEN_DOMCTL_INTERFACE_VERSION; op.domain = 0x102; FILL \
    print(name, &op, sizeof(op))

int main(void)
{
    unsigned long version = XEN_DOMCTL_INTERFACE_VERSION;
    print("version", &version, 4);
#define FILL op.domain = CHOOSE; memset(op.u.createdomain.handle, 0xab, 16); op.u.createdomain.flags = 1; op.u.createdomain.max_vcpus = 2; \
    op.u.createdomain.max_evtchn_port = 1023; op.u.createdomain.max_grant_frames = -1; op.u.createdomain.max_maptrack_frames = 4; \
    op.u.createdomain.grant_opts = XEN_DOMCTL_GRANT_version(1); op.u.createdomain.cpupool_id = 6;
    DOMCTL("createdomain", XEN_DOMCTL_createdomain);
#undef FILL
#define FILL
    DOMCTL("destroydomain", XEN_DOMCTL_destroydomain);
    DOMCTL("pausedomain", XEN_DOMCTL_pausedomain);
    DOMCTL("unpausedomain", XEN_DOMCTL_unpausedomain);
    DOMCTL("gettscinfo", XEN_DOMCTL_gettscinfo);
#undef FILL
#define FILL memset(op.u.setdomainhandle.handle, 0xab, 16);
    DOMCTL("setdomainhandle", XEN_DOMCTL_setdomainhandle);
#undef FILL
#define FILL op.u.max_vcpus.max = 3;
    DOMCTL("max_vcpus", XEN_DOMCTL_max_vcpus);
#undef FILL
#define FILL op.u.max_mem.max_memkb = 0x123456789;
    DOMCTL("max_mem", XEN_DOMCTL_max_mem);
#undef FILL
#define FILL op.u.tsc_info.tsc_mode = 2; op.u.tsc_info.gtsc_khz = 3; op.u.tsc_info.incarnation = 4; op.u.tsc_info.elapsed_nsec = 5;
    DOMCTL("settscinfo", XEN_DOMCTL_settscinfo);
#undef FILL
#define FILL op.u.vcpucontext.vcpu = 1; set_xen_guest_handle(op.u.vcpucontext.ctxt, handle(0));
    DOMCTL("setvcpucontext", XEN_DOMCTL_setvcpucontext);
    DOMCTL("getvcpucontext", XEN_DOMCTL_getvcpucontext);
#undef FILL
#define FILL op.u.cpu_policy.nr_leaves = 2; op.u.cpu_policy.nr_msrs = 1; set_xen_guest_handle(op.u.cpu_policy.leaves, handle(0)); \
    set_xen_guest_handle(op.u.cpu_policy.msrs, handle(2 * sizeof(xen_cpuid_leaf_t)));
    DOMCTL("get_cpu_policy", XEN_DOMCTL_get_cpu_policy);
    DOMCTL("set_cpu_policy", XEN_DOMCTL_set_cpu_policy);
#undef FILL
#define FILL op.u.scheduler_op.sched_id = XEN_SCHEDULER_CREDIT2; op.u.scheduler_op.cmd = XEN_DOMCTL_SCHEDOP_putinfo; \
    op.u.scheduler_op.u.credit2.weight = 512; op.u.scheduler_op.u.credit2.cap = 50;
    DOMCTL("credit2", XEN_DOMCTL_scheduler_op);
#undef FILL
#define FILL op.u.scheduler_op.sched_id = XEN_SCHEDULER_CREDIT; op.u.scheduler_op.cmd = XEN_DOMCTL_SCHEDOP_putinfo; \
    op.u.scheduler_op.u.credit.weight = 512; op.u.scheduler_op.u.credit.cap = 50;
    DOMCTL("credit", XEN_DOMCTL_scheduler_op);
#undef FILL
#define FILL op.u.scheduler_op.sched_id = XEN_SCHEDULER_CREDIT; op.u.scheduler_op.cmd = XEN_DOMCTL_SCHEDOP_getinfo;
    DOMCTL("getinfo", XEN_DOMCTL_scheduler_op);

    struct xen_domctl_getdomaininfo info = {
        .domain = 0x102, .flags = XEN_DOMINF_dying | XEN_DOMINF_paused | 3 << XEN_DOMINF_shutdownshift | XEN_DOMINF_shutdown,
        .tot_pages = 1, .max_pages = 2, .outstanding_pages = 3, .shr_pages = 4, .paged_pages = 5, .shared_info_frame = 6,
        .cpu_time = 7, .nr_online_vcpus = 8, .max_vcpu_id = 9, .ssidref = 10, .cpupool = 11,
    };
    memset(info.handle, 0xab, 16);
    print("getdomaininfo", &info, sizeof(info));
    uint32_t bits[] = { XEN_DOMINF_blocked, XEN_DOMINF_running, XEN_INVALID_MAX_VCPU_ID };
    print("bits", bits, sizeof(bits));

    vcpu_guest_context_t context;
    memset(&context, 0, sizeof(context));
    context.fpu_ctxt.x[511] = 1;
    context.flags = VGCF_in_kernel | VGCF_online;
    struct cpu_user_regs regs = {
        .r15 = 1, .r14 = 2, .r13 = 3, .r12 = 4, .rbp = 5, .rbx = 6, .r11 = 7, .r10 = 8, .r9 = 9, .r8 = 10, .rax = 11, .rcx = 12,
        .rdx = 13, .rsi = 14, .rdi = 15, .error_code = 16, .entry_vector = 17, .rip = 18, .cs = 19, .saved_upcall_mask = 20,
        .rflags = 21, .rsp = 22, .ss = 23, .es = 24, .ds = 25, .fs = 26, .gs = 27,
    };
    context.user_regs = regs;
    context.trap_ctxt[255] = (struct trap_info){ .vector = 255, .flags = 4, .cs = 0xe033, .address = 0x123456789abcdef0 };
    context.ldt_base = 30, context.ldt_ents = 31, context.gdt_frames[0] = 32, context.gdt_frames[15] = 33, context.gdt_ents = 34;
    context.kernel_ss = 35, context.kernel_sp = 36, context.ctrlreg[0] = 37, context.ctrlreg[3] = 0x5000, context.ctrlreg[7] = 39;
    context.debugreg[0] = 40, context.debugreg[7] = 41, context.event_callback_eip = 42, context.failsafe_callback_eip = 43;
    context.syscall_callback_eip = 44, context.vm_assist = 45, context.fs_base = 46, context.gs_base_kernel = 47;
    context.gs_base_user = 48;
    print("context", &context, sizeof(context));

    uint64_t requests[] = {
        IOCTL_PRIVCMD_HYPERCALL, IOCTL_PRIVCMD_MMAPBATCH_V2, IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF,
        IOCTL_EVTCHN_BIND_INTERDOMAIN, IOCTL_EVTCHN_BIND_UNBOUND_PORT, IOCTL_EVTCHN_UNBIND, IOCTL_EVTCHN_NOTIFY,
        XENMEM_claim_pages,
    };
    print("requests", requests, sizeof(requests));
    uint64_t offsets[] = {
        offsetof(privcmd_mmapbatch_v2_t, dom), offsetof(privcmd_mmapbatch_v2_t, addr), offsetof(privcmd_mmapbatch_v2_t, arr),
        offsetof(privcmd_mmapbatch_v2_t, err), offsetof(struct ioctl_gntdev_map_grant_ref, index),
        offsetof(struct ioctl_gntdev_map_grant_ref, refs), offsetof(struct ioctl_gntdev_grant_ref, ref),
        offsetof(struct ioctl_gntdev_unmap_grant_ref, count), offsetof(struct ioctl_evtchn_bind_interdomain, remote_port),
    };
    print("offsets", offsets, sizeof(offsets));
    return 0;
}
"#;

/// The output of the C program with these headers of Xen's.
fn c_octets(include: &Path) -> BTreeMap<String, Vec<u8>> {
    let output = output_of("octets", PROGRAM, include, &["-w"]);
    let line = |line: &str| {
        let (name, digits) = line.split_once(' ').unwrap();
        let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (name.to_owned(), (0..digits.len()).step_by(2).map(octet).collect())
    };
    output.lines().map(line).collect()
}

const DOMAIN: DomId = DomId(0x102);
const HANDLE: [u8; 16] = [0xab; 16];
const CONFIG: CreateDomain = CreateDomain {
    flags: 1,
    max_vcpus: 2,
    max_evtchn_port: 1023,
    max_grant_frames: -1,
    max_maptrack_frames: 4,
    handle: HANDLE,
    cpupool: 6,
};

fn sched(scheduler: Scheduler) -> SchedParams {
    SchedParams { scheduler, weight: 512, cap: 50 }
}

fn context() -> VcpuGuestContext {
    let mut context = VcpuGuestContext {
        flags: VgcfFlags::IN_KERNEL | VgcfFlags::ONLINE,
        user_regs: UserRegs {
            r15: 1,
            r14: 2,
            r13: 3,
            r12: 4,
            rbp: 5,
            rbx: 6,
            r11: 7,
            r10: 8,
            r9: 9,
            r8: 10,
            rax: 11,
            rcx: 12,
            rdx: 13,
            rsi: 14,
            rdi: 15,
            error_code: 16,
            entry_vector: 17,
            rip: 18,
            cs: 19,
            saved_upcall_mask: 20,
            rflags: 21,
            rsp: 22,
            ss: 23,
            es: 24,
            ds: 25,
            fs: 26,
            gs: 27,
        },
        ldt_base: 30,
        ldt_ents: 31,
        gdt_ents: 34,
        kernel_ss: 35,
        kernel_sp: 36,
        event_callback_eip: 42,
        failsafe_callback_eip: 43,
        syscall_callback_eip: 44,
        vm_assist: 45,
        fs_base: 46,
        gs_base_kernel: 47,
        gs_base_user: 48,
        ..VcpuGuestContext::default()
    };
    context.fpu_ctxt[511] = 1;
    context.trap_ctxt[255] = TrapInfo { vector: 255, flags: 4, cs: 0xe033, address: 0x1234_5678_9abc_def0 };
    (context.gdt_frames[0], context.gdt_frames[15]) = (Mfn(32), Mfn(33));
    (context.ctrlreg[0], context.ctrlreg[3], context.ctrlreg[7]) = (37, VcpuGuestContext::cr3(Mfn(5)), 39);
    (context.debugreg[0], context.debugreg[7]) = (40, 41);
    context
}

#[test]
fn octets_are_those_of_the_c_headers() {
    for include in includes() {
        let c = c_octets(&include);
        let version = u32::from_le_bytes(c["version"][..].try_into().unwrap());
        if RELEASES.iter().any(|release| release.domctl == version) {
            compare(version, &c);
        } else {
            // `Xen::open` refuses such a Xen.
            assert_ne!(include, Path::new("/usr/include"), "the headers are of interface {version:#x}");
            eprintln!("{}: of interface {version:#x}, which is no supported one", include.display());
        }
    }
}

/// Compares this crate with the output of the C program by headers of interface `version`.
fn compare(version: u32, c: &BTreeMap<String, Vec<u8>>) {
    let policy = CpuPolicy { leaves: vec![0; 2 * domctl::CPUID_LEAF_SIZE], msrs: vec![0; domctl::MSR_ENTRY_SIZE] };
    let octets = context().encode();
    let requests: [(&str, Request); 16] = [
        ("createdomain", domctl::create(version, &CONFIG)),
        ("destroydomain", domctl::plain(command::DESTROYDOMAIN, DOMAIN)),
        ("pausedomain", domctl::plain(command::PAUSEDOMAIN, DOMAIN)),
        ("unpausedomain", domctl::plain(command::UNPAUSEDOMAIN, DOMAIN)),
        ("gettscinfo", domctl::plain(command::GETTSCINFO, DOMAIN)),
        ("setdomainhandle", domctl::set_handle(DOMAIN, &HANDLE)),
        ("max_vcpus", domctl::max_vcpus(DOMAIN, 3)),
        ("max_mem", domctl::max_mem(DOMAIN, 0x1_2345_6789)),
        ("settscinfo", domctl::set_tsc_info(DOMAIN, &TscInfo { mode: 2, khz: 3, incarnation: 4, elapsed_ns: 5 })),
        ("setvcpucontext", domctl::vcpu_context_request(command::SETVCPUCONTEXT, DOMAIN, 1, &octets)),
        ("getvcpucontext", domctl::vcpu_context_request(command::GETVCPUCONTEXT, DOMAIN, 1, &octets)),
        ("get_cpu_policy", domctl::get_cpu_policy(DOMAIN, (2, 1))),
        ("set_cpu_policy", domctl::set_cpu_policy(DOMAIN, &policy)),
        ("credit2", domctl::set_sched_params(DOMAIN, &sched(Scheduler::CREDIT2))),
        ("credit", domctl::set_sched_params(DOMAIN, &sched(Scheduler::CREDIT))),
        ("getinfo", domctl::get_sched_params(DOMAIN, Scheduler::CREDIT)),
    ];
    for (name, request) in requests {
        let mut memory = vec![0xff; request.length()];
        request.write_to(version, &mut memory, 0x7000_0000);
        assert_eq!(memory[..domctl::SIZE], c[name], "{name}");
        assert_eq!(memory[domctl::SIZE..], *request.data(), "{name}");
    }
    assert_eq!(octets[..], c["context"]);
    assert_eq!(VcpuGuestContext::decode(c["context"].first_chunk().unwrap()), context());

    let info = domctl::parse_info(&c["getdomaininfo"]);
    let expected = DomainInfo {
        id: DOMAIN,
        flags: info.flags,
        pages: 1,
        max_pages: 2,
        shared_info_frame: Mfn(6),
        cpu_time: 7,
        nr_online_vcpus: 8,
        max_vcpu_id: Some(9),
        handle: HANDLE,
        cpupool: 11,
    };
    assert_eq!(info, expected);
    assert!(info.is_dying() && info.is_paused() && !info.is_blocked() && !info.is_running());
    assert_eq!(info.shutdown_reason().map(|reason| reason.0), Some(3));
    let bits: Vec<u32> = c["bits"].as_chunks().0.iter().map(|octets| u32::from_le_bytes(*octets)).collect();
    assert!(DomainInfo { flags: bits[0], ..info }.is_blocked() && DomainInfo { flags: bits[1], ..info }.is_running());
    assert_eq!(DomainInfo { flags: bits[0], ..info }.shutdown_reason(), None);
    assert_eq!(bits[2], domctl::INVALID_MAX_VCPU_ID);

    let words =
        |name: &str| -> Vec<u64> { c[name].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect() };
    let requests = [&privcmd::REQUESTS[..], &mapping::REQUESTS, &evtchn::REQUESTS, &[privcmd::CLAIM_PAGES]].concat();
    assert_eq!(requests, words("requests"));
    assert_eq!([&mapping::OFFSETS[..], &[4]].concat(), words("offsets"));
}

#[test]
fn a_number_is_asked_for_by_0_before_interface_0x18_and_by_domid_any_from_it_on() {
    let asked = |version| domctl::domain(&domctl::create(version, &CONFIG));
    assert_eq!([0x15, 0x16, 0x17, 0x18].map(asked), [DomId(0), DomId(0), DomId(0), DomId(0x7ff5)]);
}

#[test]
fn the_pool_of_processors_moved_with_interface_0x17() {
    let at = |version, at: usize| domctl::create(version, &CONFIG).octets()[16 + at];
    assert_eq!((at(0x16, 52), at(0x16, 56)), (6, 0));
    assert_eq!((at(0x17, 52), at(0x17, 56)), (0, 6));
}
