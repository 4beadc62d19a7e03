//! The kernel's command line in guest memory.

use vm_memory::{Bytes, GuestAddress};

use super::error::Error;
use super::placement::COMMAND_LINE;
use crate::memory::GuestMemory;

/// Bytes that fit into the command line's place, without the zero at the end.
const ROOM: usize = (COMMAND_LINE.end - COMMAND_LINE.start) as usize - 1;

/// Fails if the line cannot be passed: a zero byte, longer than its place, or longer than the kernel's own limit.
pub(super) fn check(line: &[u8], kernel_limit: Option<usize>) -> Result<(), Error> {
    if let Some(offset) = line.iter().position(|&byte| byte == 0) {
        return Err(Error::CommandLineZero { offset });
    }
    let (limit, limiter) = match kernel_limit {
        Some(limit) if limit < ROOM => (limit, "the kernel"),
        _ => (ROOM, "slotpass"),
    };
    if line.len() > limit {
        return Err(Error::CommandLineTooLong { length: line.len(), limit, limiter });
    }
    Ok(())
}

/// Writes a line that passed [`check`] with its zero, and gives its address.
pub(super) fn write(line: &[u8], memory: &GuestMemory) -> Result<u64, Error> {
    let start = GuestAddress(COMMAND_LINE.start);
    let end = GuestAddress(COMMAND_LINE.start + line.len() as u64);
    memory
        .write_slice(line, start)
        .and_then(|()| memory.write_slice(&[0], end))
        .map_err(|source| Error::Memory { what: "kernel command line", source })?;
    Ok(COMMAND_LINE.start)
}
