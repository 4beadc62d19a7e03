//! Calls into the CPL0 shim, `shim/calls.s`. The numbers are places in its table.

use core::arch::{asm, global_asm};

global_asm!(include_str!("shim/tables.s"), options(att_syntax, raw));
global_asm!(include_str!("shim/entry.s"), options(att_syntax, raw));
global_asm!(include_str!("shim/vectors.s"), options(att_syntax, raw));
global_asm!(include_str!("shim/calls.s"), options(att_syntax, raw));
global_asm!(include_str!("shim/memory.s"), options(att_syntax, raw));

#[derive(Clone, Copy)]
#[repr(u64)]
pub enum Call {
    In8,
    In16,
    In32,
    Out8,
    Out16,
    Out32,
    Serial,
    Wait,
    ReadMsr,
    WriteMsr,
    TimeNothing,
    TimeIn32,
    TimeOut32,
    TimeConfigRead,
    TimeConfigWrite,
    TripleFault,
    ResetAndStay,
}

/// # Safety
/// For [`Call::Serial`] and [`Call::Wait`], `first` is the address of what the call reads; [`Call::WriteMsr`] must
/// not take away what compiled code relies on. A port write can make a device write to memory.
pub unsafe fn call(number: Call, first: u64, second: u64) -> u64 {
    let mut result = number as u64;
    // SAFETY: the shim keeps to the registers named here, and has its own stack.
    unsafe {
        asm!(
            "int3",
            inlateout("rax") result,
            inlateout("rdi") first => _,
            inlateout("rsi") second => _,
            lateout("rcx") _,
            lateout("rdx") _,
            options(nostack),
        );
    }
    result
}
