//! `event_channel_op`: ports. None of these operations can break memory safety.

use crate::page::{hypercall, inout};
use xen_abi::event_channel::{
    EventChannelOp, EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindVirq, EvtchnClose, EvtchnSend, EvtchnStatus,
    EvtchnUnmask,
};
use xen_abi::xen::{Hypercall, Virq};
use xen_abi::{DomId, Errno, Port};

/// Makes a port in `dom` that `remote_dom` may bind to. An unprivileged domain can only name
/// [`DomId::SELF`] as `dom`.
///
/// # Errors
/// `ENOSPC`: the domain has no port left. `EPERM`: not for that `dom`. `ESRCH`: no such domain.
pub fn event_channel_op_alloc_unbound(dom: DomId, remote_dom: DomId) -> Result<Port, Errno> {
    let mut op = EvtchnAllocUnbound { dom, remote_dom, port: Port(0) };
    // SAFETY: `op` is the operation's own structure.
    unsafe { event_channel_op(EventChannelOp::ALLOC_UNBOUND, &mut op) }?;
    Ok(op.port)
}

/// Binds to `remote_port`, which `remote_dom` made for this domain. The new port has an event
/// pending.
///
/// # Errors
/// `EINVAL`: no such port, or not for this domain. `ENOSPC`: this domain has no port left. `ESRCH`:
/// no such domain.
pub fn event_channel_op_bind_interdomain(remote_dom: DomId, remote_port: Port) -> Result<Port, Errno> {
    let mut op = EvtchnBindInterdomain { remote_dom, remote_port, local_port: Port(0) };
    // SAFETY: `op` is the operation's own structure.
    unsafe { event_channel_op(EventChannelOp::BIND_INTERDOMAIN, &mut op) }?;
    Ok(op.local_port)
}

/// Binds a new port to `virq` of `vcpu`, or of the domain (with `vcpu` 0).
///
/// # Errors
/// `EEXIST`: it is bound already. `EINVAL`: no such virtual interrupt. `ENOENT`: no such vcpu.
/// `ENOSPC`: no port left.
pub fn event_channel_op_bind_virq(virq: Virq, vcpu: u32) -> Result<Port, Errno> {
    let mut op = EvtchnBindVirq { virq, vcpu, port: Port(0) };
    // SAFETY: `op` is the operation's own structure.
    unsafe { event_channel_op(EventChannelOp::BIND_VIRQ, &mut op) }?;
    Ok(op.port)
}

/// Closes `port`; its other end becomes unbound.
///
/// # Errors
/// `EINVAL`: no such port, or already closed.
pub fn event_channel_op_close(port: Port) -> Result<(), Errno> {
    // SAFETY: the structure is the operation's own.
    unsafe { event_channel_op(EventChannelOp::CLOSE, &mut EvtchnClose { port }) }
}

/// Sends an event to the other end of `port`. An event to an unbound port is dropped.
///
/// # Errors
/// `EINVAL`: no such port, or of a kind that nothing can be sent to.
pub fn event_channel_op_send(port: Port) -> Result<(), Errno> {
    // SAFETY: the structure is the operation's own.
    unsafe { event_channel_op(EventChannelOp::SEND, &mut EvtchnSend { port }) }
}

/// The binding of `port` of `dom`. An unprivileged domain can only name [`DomId::SELF`] as `dom`.
///
/// # Errors
/// `EINVAL`: no such port. `EPERM`: not for that `dom`. `ESRCH`: no such domain.
pub fn event_channel_op_status(dom: DomId, port: Port) -> Result<EvtchnStatus, Errno> {
    let mut op = EvtchnStatus { dom, port, ..EvtchnStatus::default() };
    // SAFETY: `op` is the operation's own structure.
    unsafe { event_channel_op(EventChannelOp::STATUS, &mut op) }?;
    Ok(op)
}

/// Clears the mask of `port`, and raises its event if one is pending.
///
/// # Errors
/// `EINVAL`: no such port.
pub fn event_channel_op_unmask(port: Port) -> Result<(), Errno> {
    // SAFETY: the structure is the operation's own.
    unsafe { event_channel_op(EventChannelOp::UNMASK, &mut EvtchnUnmask { port }) }
}

/// # Safety
/// `argument` is the structure that belongs to `op`.
unsafe fn event_channel_op<T>(op: EventChannelOp, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: Xen reads and writes `argument`. It is borrowed for the call and, by the caller's
    // promise, large enough.
    unsafe { hypercall::<{ Hypercall::EVENT_CHANNEL_OP.0 }>([op.0.into(), inout(argument), 0, 0, 0]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_xen::with_xen;
    use xen_abi::event_channel::{Binding, EvtchnStat};

    #[test]
    fn ports_come_from_xen() {
        let port = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::EVENT_CHANNEL_OP);
                assert_eq!(call.args[0], EventChannelOp::ALLOC_UNBOUND.0.into());
                let op: &mut EvtchnAllocUnbound = call.pointee(1);
                assert_eq!((op.dom, op.remote_dom), (DomId::SELF, DomId(7)));
                op.port = Port(33);
                0
            },
            || event_channel_op_alloc_unbound(DomId::SELF, DomId(7)),
        );
        assert_eq!(port, Ok(Port(33)));

        let port = with_xen(
            |call| {
                assert_eq!(call.args[0], EventChannelOp::BIND_INTERDOMAIN.0.into());
                let op: &mut EvtchnBindInterdomain = call.pointee(1);
                assert_eq!((op.remote_dom, op.remote_port), (DomId(7), Port(33)));
                op.local_port = Port(5);
                0
            },
            || event_channel_op_bind_interdomain(DomId(7), Port(33)),
        );
        assert_eq!(port, Ok(Port(5)));

        let port = with_xen(
            |call| {
                assert_eq!(call.args[0], EventChannelOp::BIND_VIRQ.0.into());
                let op: &mut EvtchnBindVirq = call.pointee(1);
                assert_eq!((op.virq, op.vcpu), (Virq::DEBUG, 2));
                op.port = Port(6);
                0
            },
            || event_channel_op_bind_virq(Virq::DEBUG, 2),
        );
        assert_eq!(port, Ok(Port(6)));
    }

    #[test]
    fn operations_on_a_port() {
        let sent = with_xen(
            |call| {
                assert_eq!(call.args[0], EventChannelOp::SEND.0.into());
                assert_eq!(call.pointee::<EvtchnSend>(1).port, Port(9));
                0
            },
            || event_channel_op_send(Port(9)),
        );
        assert_eq!(sent, Ok(()));

        let unmasked = with_xen(
            |call| {
                assert_eq!(call.args[0], EventChannelOp::UNMASK.0.into());
                assert_eq!(call.pointee::<EvtchnUnmask>(1).port, Port(9));
                0
            },
            || event_channel_op_unmask(Port(9)),
        );
        assert_eq!(unmasked, Ok(()));

        let closed = with_xen(
            |call| {
                assert_eq!(call.args[0], EventChannelOp::CLOSE.0.into());
                assert_eq!(call.pointee::<EvtchnClose>(1).port, Port(9));
                -i64::from(Errno::EINVAL.0)
            },
            || event_channel_op_close(Port(9)),
        );
        assert_eq!(closed, Err(Errno::EINVAL));
    }

    #[test]
    fn status_of_a_port() {
        let status = with_xen(
            |call| {
                assert_eq!(call.args[0], EventChannelOp::STATUS.0.into());
                let op: &mut EvtchnStatus = call.pointee(1);
                assert_eq!((op.dom, op.port), (DomId::SELF, Port(4)));
                (op.status, op.u) = (EvtchnStat::VIRQ, [Virq::TIMER.0, 0]);
                0
            },
            || event_channel_op_status(DomId::SELF, Port(4)),
        );
        assert_eq!(status.unwrap().binding(), Binding::Virq(Virq::TIMER));
    }
}
