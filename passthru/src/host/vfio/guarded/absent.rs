//! Targets whose registers nobody has described here: accesses go through the device's file.

use std::io;

/// Accesses can be made.
pub fn is_available() -> bool {
    false
}

/// Reads nothing.
///
/// # Safety
/// None is needed.
pub unsafe fn read(_: *const u8, _: &mut [u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Writes nothing.
///
/// # Safety
/// None is needed.
pub unsafe fn write(_: *mut u8, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
