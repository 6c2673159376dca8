//! `public/event_channel.h`: event channels of the two-level kind.

use crate::DomId;
use crate::xen::Virq;

/// A domain's end of an event channel, `evtchn_port_t`. Port 0 is never valid.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

impl core::fmt::Display for Port {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Ports that a domain has. Each has a bit in `shared_info`.
pub const EVTCHN_2L_NR_CHANNELS: usize = 64 * 64;

open_enum! {
    /// An operation of `event_channel_op`, `EVTCHNOP_*`.
    pub struct EventChannelOp: u32 {
        BIND_INTERDOMAIN = 0;
        BIND_VIRQ = 1;
        BIND_PIRQ = 2;
        CLOSE = 3;
        SEND = 4;
        STATUS = 5;
        ALLOC_UNBOUND = 6;
        BIND_IPI = 7;
        BIND_VCPU = 8;
        UNMASK = 9;
        RESET = 10;
        INIT_CONTROL = 11;
        EXPAND_ARRAY = 12;
        SET_PRIORITY = 13;
    }
}

/// Makes a port in `dom` that `remote_dom` may bind to, `struct evtchn_alloc_unbound`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnAllocUnbound {
    /// The domain that gets the port; only [`DomId::SELF`] for an unprivileged caller.
    pub dom: DomId,
    /// The domain that may bind to it.
    pub remote_dom: DomId,
    /// Out: the new port.
    pub port: Port,
}
assert_layout!(EvtchnAllocUnbound, 8, dom: 0, remote_dom: 2, port: 4);

/// Binds to a port that another domain made for this one, `struct evtchn_bind_interdomain`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnBindInterdomain {
    /// The domain that made the port.
    pub remote_dom: DomId,
    /// Its port.
    pub remote_port: Port,
    /// Out: this domain's port, with an event pending.
    pub local_port: Port,
}
assert_layout!(EvtchnBindInterdomain, 12, remote_dom: 0, remote_port: 4, local_port: 8);

/// Binds a port to a virtual interrupt, `struct evtchn_bind_virq`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnBindVirq {
    /// The interrupt.
    pub virq: Virq,
    /// 0 for a virtual interrupt that is not per vcpu.
    pub vcpu: u32,
    /// Out: the new port.
    pub port: Port,
}
assert_layout!(EvtchnBindVirq, 12, virq: 0, vcpu: 4, port: 8);

/// Makes a port by which this domain can interrupt one of its vcpus, `struct evtchn_bind_ipi`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnBindIpi {
    /// The vcpu to be interrupted.
    pub vcpu: u32,
    /// Out: the new port.
    pub port: Port,
}
assert_layout!(EvtchnBindIpi, 8, vcpu: 0, port: 4);

/// Closes a port, `struct evtchn_close`. The other end becomes unbound.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnClose {
    /// The local port.
    pub port: Port,
}
assert_layout!(EvtchnClose, 4);

/// Sends an event to a port's other end, `struct evtchn_send`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnSend {
    /// The local port.
    pub port: Port,
}
assert_layout!(EvtchnSend, 4);

/// Selects the vcpu that receives a port's events, `struct evtchn_bind_vcpu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnBindVcpu {
    /// The local port.
    pub port: Port,
    /// The vcpu whose upcall is made.
    pub vcpu: u32,
}
assert_layout!(EvtchnBindVcpu, 8, port: 0, vcpu: 4);

/// Clears a port's mask and raises its event if one is pending, `struct evtchn_unmask`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnUnmask {
    /// The local port.
    pub port: Port,
}
assert_layout!(EvtchnUnmask, 4);

/// Closes all ports of a domain, `struct evtchn_reset`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnReset {
    /// The domain; only [`DomId::SELF`] for an unprivileged caller.
    pub dom: DomId,
}
assert_layout!(EvtchnReset, 2);

open_enum! {
    /// The kind of binding of a port, `EVTCHNSTAT_*`.
    pub struct EvtchnStat: u32 {
        CLOSED = 0;
        UNBOUND = 1;
        INTERDOMAIN = 2;
        PIRQ = 3;
        VIRQ = 4;
        IPI = 5;
    }
}

/// Asks for the state of a port, `struct evtchn_status`. [`EvtchnStatus::binding`] reads the
/// answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvtchnStatus {
    /// The domain that has the port; only [`DomId::SELF`] for an unprivileged caller.
    pub dom: DomId,
    /// The port asked about.
    pub port: Port,
    /// Out.
    pub status: EvtchnStat,
    /// Out: the vcpu that receives the port's events.
    pub vcpu: u32,
    /// Out: the union `u`, whose meaning depends on `status`.
    pub u: [u32; 2],
}
assert_layout!(EvtchnStatus, 24, dom: 0, port: 4, status: 8, vcpu: 12, u: 16);

/// The binding of a port, with the other end where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The port is not in use.
    Closed,
    /// The port waits for this domain to bind to it.
    Unbound {
        /// The domain that may bind to it.
        remote_dom: DomId,
    },
    /// The port is connected to this port of that domain.
    Interdomain {
        /// The other end's domain.
        remote_dom: DomId,
        /// The other end.
        remote_port: Port,
    },
    /// The port is bound to a physical interrupt.
    Pirq(u32),
    /// The port is bound to a virtual interrupt.
    Virq(Virq),
    /// The port is bound to interrupts between vcpus.
    Ipi,
    /// A status that this crate does not know.
    Other(EvtchnStat),
}

impl EvtchnStatus {
    /// The binding of the port, read from `status` and `u`.
    #[must_use]
    pub const fn binding(&self) -> Binding {
        // A `domid_t` is the low half of its word; its other half is padding.
        let remote_dom = DomId(self.u[0] as u16);
        match self.status {
            EvtchnStat::CLOSED => Binding::Closed,
            EvtchnStat::UNBOUND => Binding::Unbound { remote_dom },
            EvtchnStat::INTERDOMAIN => Binding::Interdomain { remote_dom, remote_port: Port(self.u[1]) },
            EvtchnStat::PIRQ => Binding::Pirq(self.u[0]),
            EvtchnStat::VIRQ => Binding::Virq(Virq(self.u[0])),
            EvtchnStat::IPI => Binding::Ipi,
            other => Binding::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_union_is_read_by_status() {
        let status = |status, u| EvtchnStatus { status, u, ..EvtchnStatus::default() }.binding();
        let remote_dom = DomId(7);
        assert_eq!(status(EvtchnStat::UNBOUND, [0xdead_0007, 0]), Binding::Unbound { remote_dom });
        assert_eq!(status(EvtchnStat::INTERDOMAIN, [7, 9]), Binding::Interdomain { remote_dom, remote_port: Port(9) });
        assert_eq!(status(EvtchnStat::VIRQ, [0, 0]), Binding::Virq(Virq::TIMER));
        assert_eq!(status(EvtchnStat(77), [0, 0]), Binding::Other(EvtchnStat(77)));
    }
}
