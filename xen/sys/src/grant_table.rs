//! `grant_table_op`: the grant table itself, and the use of other domains' grants.

use core::fmt;

use crate::page::{hypercall, inout};
use xen_abi::grant_table::{
    GnttabCopy, GnttabMapGrantRef, GnttabQuerySize, GnttabSetupTable, GnttabUnmapGrantRef, GrantStatus, GrantTableOp,
};
use xen_abi::xen::Hypercall;
use xen_abi::{DomId, Errno, Mfn};

/// The reason for which an operation on the grant table failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantTableError {
    /// Xen refused the hypercall.
    Hypercall(Errno),
    /// Xen refused the request in it.
    Request(GrantStatus),
}

impl fmt::Display for GrantTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hypercall(errno) => errno.fmt(f),
            Self::Request(status) => status.fmt(f),
        }
    }
}

impl core::error::Error for GrantTableError {}

/// Grows the grant table of `dom` to `frames.len()` frames, if it has fewer, and writes the numbers
/// of its first frames to `frames`. An unprivileged domain can only name [`DomId::SELF`].
///
/// # Errors
/// `GENERAL_ERROR`: more frames than the domain may have, or than Xen has memory for.
/// `PERMISSION_DENIED`: not for that `dom`. `BAD_DOMAIN`: no such domain.
pub fn grant_table_op_setup_table(dom: DomId, frames: &mut [Mfn]) -> Result<(), GrantTableError> {
    frames.as_mut_ptr().expose_provenance();
    let mut op = GnttabSetupTable {
        dom,
        nr_frames: frames.len() as u32,
        status: GrantStatus::OKAY,
        frame_list: frames.as_mut_ptr(),
    };
    // SAFETY: `op` is the operation's own structure; through it, Xen writes no more than `frames`
    // holds.
    unsafe { grant_table_op(GrantTableOp::SETUP_TABLE, core::slice::from_mut(&mut op)) }
        .map_err(GrantTableError::Hypercall)?;
    op.status.check().map_err(GrantTableError::Request)
}

/// Frames that the grant table of `dom` has (`nr_frames`) and may have (`max_nr_frames`). An
/// unprivileged domain can only name [`DomId::SELF`].
///
/// # Errors
/// `PERMISSION_DENIED`: not for that `dom`. `BAD_DOMAIN`: no such domain.
pub fn grant_table_op_query_size(dom: DomId) -> Result<GnttabQuerySize, GrantTableError> {
    let mut op = GnttabQuerySize { dom, ..GnttabQuerySize::default() };
    // SAFETY: `op` is the operation's own structure.
    unsafe { grant_table_op(GrantTableOp::QUERY_SIZE, core::slice::from_mut(&mut op)) }
        .map_err(GrantTableError::Hypercall)?;
    op.status.check().map_err(GrantTableError::Request)?;
    Ok(op)
}

/// Maps other domains' pages. Each request has a `status` of its own.
///
/// # Errors
/// Xen's, for the hypercall as a whole.
///
/// # Safety
/// The addresses that the requests name are unused, and the mapped memory is treated as memory that
/// another domain may change at any time.
pub unsafe fn grant_table_op_map_grant_ref(requests: &mut [GnttabMapGrantRef]) -> Result<(), Errno> {
    // SAFETY: the structures are the operation's own; the mappings are the caller's duty.
    unsafe { grant_table_op(GrantTableOp::MAP_GRANT_REF, requests) }
}

/// Unmaps other domains' pages. Each request has a `status` of its own.
///
/// # Errors
/// Xen's, for the hypercall as a whole.
///
/// # Safety
/// Nothing uses the pages any more.
pub unsafe fn grant_table_op_unmap_grant_ref(requests: &mut [GnttabUnmapGrantRef]) -> Result<(), Errno> {
    // SAFETY: the structures are the operation's own; the unmapping is the caller's duty.
    unsafe { grant_table_op(GrantTableOp::UNMAP_GRANT_REF, requests) }
}

/// Lets Xen copy between pages of this domain and of others. Each request has a `status` of its
/// own.
///
/// # Errors
/// Xen's, for the hypercall as a whole.
///
/// # Safety
/// Bytes of this domain that are written to may change now, and those that are read may be
/// disclosed to the other domain.
pub unsafe fn grant_table_op_copy(requests: &mut [GnttabCopy]) -> Result<(), Errno> {
    // SAFETY: the structures are the operation's own; the copied ranges are the caller's duty.
    unsafe { grant_table_op(GrantTableOp::COPY, requests) }
}

/// # Safety
/// `requests` are structures that belong to `op`, and the memory that they name may be used
/// accordingly.
unsafe fn grant_table_op<T>(op: GrantTableOp, requests: &mut [T]) -> Result<(), Errno> {
    let args = [op.0.into(), inout(requests), requests.len() as u64, 0, 0];
    // SAFETY: Xen reads and writes `requests`, which are borrowed for the call; the rest is the
    // caller's duty.
    unsafe { hypercall::<{ Hypercall::GRANT_TABLE_OP.0 }>(args) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_xen::with_xen;
    use xen_abi::grant_table::{GnttabCopyPtr, GrantHandle};

    #[test]
    fn the_table_s_frames_come_from_xen() {
        let mut frames = [Mfn(0); 2];
        let result = with_xen(
            |call| {
                assert_eq!(call.number(), Hypercall::GRANT_TABLE_OP);
                assert_eq!((call.args[0], call.args[2]), (GrantTableOp::SETUP_TABLE.0.into(), 1));
                let op: GnttabSetupTable = *call.pointee(1);
                assert_eq!((op.dom, op.nr_frames), (DomId::SELF, 2));
                call.args[1] = op.frame_list.addr() as u64;
                call.pointees(1, 2).copy_from_slice(&[Mfn(70), Mfn(71)]);
                0
            },
            || grant_table_op_setup_table(DomId::SELF, &mut frames),
        );
        assert_eq!((result, frames), (Ok(()), [Mfn(70), Mfn(71)]));
    }

    #[test]
    fn both_kinds_of_failure_are_errors() {
        let refused = with_xen(|_| -14, || grant_table_op_query_size(DomId::SELF));
        assert_eq!(refused, Err(GrantTableError::Hypercall(Errno::EFAULT)));
        let refused = with_xen(
            |call| {
                assert_eq!((call.args[0], call.args[2]), (GrantTableOp::QUERY_SIZE.0.into(), 1));
                call.pointee::<GnttabQuerySize>(1).status = GrantStatus::BAD_DOMAIN;
                0
            },
            || grant_table_op_query_size(DomId(99)),
        );
        assert_eq!(refused, Err(GrantTableError::Request(GrantStatus::BAD_DOMAIN)));
    }

    #[test]
    fn requests_are_passed_as_a_list() {
        let mut requests = [GnttabMapGrantRef::default(); 2];
        let result = with_xen(
            |call| {
                assert_eq!((call.args[0], call.args[2]), (GrantTableOp::MAP_GRANT_REF.0.into(), 2));
                call.pointees::<GnttabMapGrantRef>(1, 2)[1].handle = GrantHandle(8);
                0
            },
            // SAFETY: the test plays Xen.
            || unsafe { grant_table_op_map_grant_ref(&mut requests) },
        );
        assert_eq!((result, requests[1].handle), (Ok(()), GrantHandle(8)));

        let result = with_xen(
            |call| {
                assert_eq!((call.args[0], call.args[2]), (GrantTableOp::UNMAP_GRANT_REF.0.into(), 1));
                assert_eq!(call.pointee::<GnttabUnmapGrantRef>(1).handle, GrantHandle(8));
                0
            },
            || {
                let request = GnttabUnmapGrantRef { handle: GrantHandle(8), ..Default::default() };
                // SAFETY: the test plays Xen.
                unsafe { grant_table_op_unmap_grant_ref(&mut [request]) }
            },
        );
        assert_eq!(result, Ok(()));

        let result = with_xen(
            |call| {
                assert_eq!((call.args[0], call.args[2]), (GrantTableOp::COPY.0.into(), 1));
                assert_eq!(call.pointee::<GnttabCopy>(1).dest, GnttabCopyPtr::frame(Mfn(4), 16));
                0
            },
            || {
                let request = GnttabCopy { dest: GnttabCopyPtr::frame(Mfn(4), 16), ..Default::default() };
                // SAFETY: the test plays Xen.
                unsafe { grant_table_op_copy(&mut [request]) }
            },
        );
        assert_eq!(result, Ok(()));
    }
}
