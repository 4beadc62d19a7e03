//! Accesses to I/O ports, as KVM tells of them.

use std::slice;

use kvm_bindings::{KVM_EXIT_IO_IN, kvm_run, kvm_run__bindgen_ty_1__bindgen_ty_4 as PortExit};
use passthru::pci::Space;

use crate::bus::View;

/// Answers a port access. `REP INS` and `REP OUTS` make many accesses of `size` bytes to one port in one exit, which
/// the slice of the exit alone does not tell from one wide access.
pub(super) fn answer(run: &mut kvm_run, view: &mut View) {
    let (io, data) = data(run);
    let (space, port, is_read) = (Space::Io, u64::from(io.port), u32::from(io.direction) == KVM_EXIT_IO_IN);
    // Nearly always.
    if io.count == 1 {
        return if is_read { view.read(space, port, data) } else { view.write(space, port, data) };
    }
    for access in data.chunks_mut(usize::from(io.size).max(1)) {
        match is_read {
            true => view.read(space, port, access),
            false => view.write(space, port, access),
        }
    }
}

/// What an exit for I/O is about, and the bytes of all its accesses.
pub(super) fn data(run: &mut kvm_run) -> (PortExit, &mut [u8]) {
    // SAFETY: the callers come here after an exit for I/O, which fills this member of the union.
    let io = unsafe { run.__bindgen_anon_1.io };
    let (size, count) = (usize::from(io.size), io.count as usize);
    let start = (run as *mut kvm_run).cast::<u8>();
    // SAFETY: KVM has put `count` accesses of `size` bytes at this offset into the pages that it shares for this vCPU,
    // which nothing else refers to until the next KVM_RUN.
    let data = unsafe { slice::from_raw_parts_mut(start.add(io.data_offset as usize), size * count) };
    (io, data)
}
