//! The state of a vCPU after power-on, kept so that a guest reset returns to it.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_fpu, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};

use crate::kvm::{KvmError, call};

/// Registers that a guest changes and that no other state holds (Intel SDM vol. 4; `asm/kvm_para.h` for KVM's own,
/// through which a guest has told KVM of memory that it must no longer write).
const MSRS: [u32; 40] = [
    0x10,  // IA32_TIME_STAMP_COUNTER
    0x3b,  // IA32_TSC_ADJUST
    0x48,  // IA32_SPEC_CTRL
    0x174, // IA32_SYSENTER_CS
    0x175, // IA32_SYSENTER_ESP
    0x176, // IA32_SYSENTER_EIP
    0x1a0, // IA32_MISC_ENABLE
    0x250, // IA32_MTRR_FIX64K_00000
    0x258, // IA32_MTRR_FIX16K_80000
    0x259, // IA32_MTRR_FIX16K_A0000
    0x268, // IA32_MTRR_FIX4K_C0000 to F8000
    0x269,
    0x26a,
    0x26b,
    0x26c,
    0x26d,
    0x26e,
    0x26f,
    0x277,       // IA32_PAT
    0x2ff,       // IA32_MTRR_DEF_TYPE
    0x6e0,       // IA32_TSC_DEADLINE
    0xda0,       // IA32_XSS
    0x4b56_4d00, // MSR_KVM_WALL_CLOCK_NEW
    0x4b56_4d01, // MSR_KVM_SYSTEM_TIME_NEW
    0x4b56_4d02, // MSR_KVM_ASYNC_PF_EN
    0x4b56_4d03, // MSR_KVM_STEAL_TIME
    0x4b56_4d04, // MSR_KVM_PV_EOI_EN
    0x4b56_4d05, // MSR_KVM_POLL_CONTROL
    0x4b56_4d06, // MSR_KVM_ASYNC_PF_INT
    0x11,        // MSR_KVM_WALL_CLOCK
    0x12,        // MSR_KVM_SYSTEM_TIME
    0xc000_0081, // IA32_STAR
    0xc000_0082, // IA32_LSTAR
    0xc000_0083, // IA32_CSTAR
    0xc000_0084, // IA32_FMASK
    0xc000_0102, // IA32_KERNEL_GS_BASE
    0xc000_0103, // IA32_TSC_AUX
    0xc000_0104, // AMD64_TSC_RATIO
    0xc001_0114, // VM_CR
    0xc001_0117, // VM_HSAVE_PA
];

/// A vCPU's state.
pub struct State {
    regs: kvm_regs,
    sregs: kvm_sregs,
    fpu: kvm_fpu,
    debug: kvm_debugregs,
    xcrs: Option<kvm_xcrs>,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    mp_state: kvm_mp_state,
    msrs: Vec<kvm_msr_entry>,
}

impl State {
    /// Of a vCPU that has not run.
    pub fn capture(vm: &VmFd, vcpu: &VcpuFd) -> Result<State, KvmError> {
        let msr = |index: &u32| {
            let mut one =
                Msrs::from_entries(&[kvm_msr_entry { index: *index, ..Default::default() }]).ok()?;
            // KVM reads none that this processor does not have.
            (vcpu.get_msrs(&mut one).ok()? == 1).then(|| one.as_slice().first().copied())?
        };
        Ok(State {
            regs: vcpu.get_regs().map_err(call("KVM_GET_REGS"))?,
            sregs: vcpu.get_sregs().map_err(call("KVM_GET_SREGS"))?,
            fpu: vcpu.get_fpu().map_err(call("KVM_GET_FPU"))?,
            debug: vcpu.get_debug_regs().map_err(call("KVM_GET_DEBUGREGS"))?,
            xcrs: match vm.check_extension(Cap::Xcrs) {
                true => Some(vcpu.get_xcrs().map_err(call("KVM_GET_XCRS"))?),
                false => None,
            },
            lapic: vcpu.get_lapic().map_err(call("KVM_GET_LAPIC"))?,
            events: vcpu.get_vcpu_events().map_err(call("KVM_GET_VCPU_EVENTS"))?,
            mp_state: vcpu.get_mp_state().map_err(call("KVM_GET_MP_STATE"))?,
            msrs: MSRS.iter().filter_map(msr).collect(),
        })
    }

    /// Puts a vCPU that does not run back to it.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        vcpu.set_regs(&self.regs).map_err(call("KVM_SET_REGS"))?;
        // The special registers hold the APIC base, by which KVM takes or refuses the local APIC's state.
        vcpu.set_sregs(&self.sregs).map_err(call("KVM_SET_SREGS"))?;
        vcpu.set_fpu(&self.fpu).map_err(call("KVM_SET_FPU"))?;
        vcpu.set_debug_regs(&self.debug).map_err(call("KVM_SET_DEBUGREGS"))?;
        if let Some(xcrs) = &self.xcrs {
            vcpu.set_xcrs(xcrs).map_err(call("KVM_SET_XCRS"))?;
        }
        for msr in &self.msrs {
            if let Ok(one) = Msrs::from_entries(&[*msr]) {
                vcpu.set_msrs(&one).map_err(call("KVM_SET_MSRS"))?;
            }
        }
        vcpu.set_lapic(&self.lapic).map_err(call("KVM_SET_LAPIC"))?;
        vcpu.set_vcpu_events(&self.events).map_err(call("KVM_SET_VCPU_EVENTS"))?;
        vcpu.set_mp_state(self.mp_state).map_err(call("KVM_SET_MP_STATE"))
    }
}
