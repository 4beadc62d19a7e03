//! The state of a vCPU after power-on, kept so that a guest reset returns to it.

use std::collections::BTreeSet;

use kvm_bindings::nested::KvmNestedStateBuffer;
use kvm_bindings::{
    Msrs, Xsave, kvm_debugregs, kvm_fpu, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave, kvm_xsave2,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use log::debug;
use vmm_sys_util::fam::FamStruct;

use crate::kvm::{KvmError, call};

/// Registers that KVM holds for a guest without listing them: a list of KVM's own grew over the years, and its memory
/// type registers are not in it (Intel SDM vol. 4, AMD64 APM vol. 2 appendix A).
const UNLISTED: [u32; 37] = [
    0x1d9, // IA32_DEBUGCTL
    0x200, // IA32_MTRR_PHYSBASE0, IA32_MTRR_PHYSMASK0, and those of the 7 others that KVM has
    0x201,
    0x202,
    0x203,
    0x204,
    0x205,
    0x206,
    0x207,
    0x208,
    0x209,
    0x20a,
    0x20b,
    0x20c,
    0x20d,
    0x20e,
    0x20f,
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
    0xc000_0103, // IA32_TSC_AUX
    0xc000_0104, // AMD64_TSC_RATIO
    0xc001_0015, // HWCR
    0xc001_0114, // VM_CR
    0xc001_0117, // VM_HSAVE_PA
];

/// Hyper-V's registers, which are left out: the guest's CPUID does not have that interface, so that KVM refuses the
/// guest all of them, and a mere read from here would make KVM set the interface up for the vCPU.
const HYPER_V: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4000_01ff;

/// Most registers in one call; KVM takes fewer than 256 (`MAX_IO_MSRS`).
const MSRS_AT_ONCE: usize = 128;

/// The model-specific registers whose values are kept.
pub fn registers(kvm: &Kvm) -> Result<Vec<u32>, KvmError> {
    let listed = kvm.get_msr_index_list().map_err(call("KVM_GET_MSR_INDEX_LIST"))?;
    let all: BTreeSet<u32> = listed.as_slice().iter().chain(&UNLISTED).copied().collect();
    Ok(all.into_iter().filter(|index| !HYPER_V.contains(index)).collect())
}

/// Floating-point and vector registers.
enum Vectors {
    Xsave(Xsave),
    /// Where KVM has no XSAVE: x87 and SSE.
    Fpu(Box<kvm_fpu>),
}

/// A vCPU's state.
pub struct State {
    pub(super) nested: Option<Box<KvmNestedStateBuffer>>,
    pub(super) regs: kvm_regs,
    sregs: kvm_sregs,
    vectors: Vectors,
    debug: kvm_debugregs,
    xcrs: Option<kvm_xcrs>,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    mp_state: kvm_mp_state,
    pub(super) msrs: Vec<kvm_msr_entry>,
}

impl State {
    /// Of a vCPU that has its CPUID and has not run, with these of its model-specific registers.
    pub fn capture(vm: &VmFd, vcpu: &VcpuFd, registers: &[u32]) -> Result<State, KvmError> {
        Ok(State {
            nested: match vm.check_extension(Cap::NestedState) {
                true => Some(nested_state(vcpu)?),
                false => None,
            },
            regs: vcpu.get_regs().map_err(call("KVM_GET_REGS"))?,
            sregs: vcpu.get_sregs().map_err(call("KVM_GET_SREGS"))?,
            vectors: Vectors::of(vm, vcpu)?,
            debug: vcpu.get_debug_regs().map_err(call("KVM_GET_DEBUGREGS"))?,
            xcrs: match vm.check_extension(Cap::Xcrs) {
                true => Some(vcpu.get_xcrs().map_err(call("KVM_GET_XCRS"))?),
                false => None,
            },
            lapic: vcpu.get_lapic().map_err(call("KVM_GET_LAPIC"))?,
            events: vcpu.get_vcpu_events().map_err(call("KVM_GET_VCPU_EVENTS"))?,
            mp_state: vcpu.get_mp_state().map_err(call("KVM_GET_MP_STATE"))?,
            msrs: read(vcpu, registers)?,
        })
    }

    /// Puts a vCPU that does not run back to it.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        // Out of VMX operation or a nested guest first: while VMXON counts, KVM refuses a CR4 without VMXE and writes
        // to the registers of VMX capabilities, and registers of a nested guest are not the vCPU's own.
        if let Some(nested) = &self.nested {
            vcpu.set_nested_state(nested).map_err(call("KVM_SET_NESTED_STATE"))?;
        }
        vcpu.set_regs(&self.regs).map_err(call("KVM_SET_REGS"))?;
        // The special registers hold the APIC base, by which KVM takes or refuses the local APIC's state, and turn
        // paging off, without which EFER among the model-specific registers is refused.
        vcpu.set_sregs(&self.sregs).map_err(call("KVM_SET_SREGS"))?;
        self.vectors.restore(vcpu)?;
        vcpu.set_debug_regs(&self.debug).map_err(call("KVM_SET_DEBUGREGS"))?;
        if let Some(xcrs) = &self.xcrs {
            vcpu.set_xcrs(xcrs).map_err(call("KVM_SET_XCRS"))?;
        }
        // Before the local APIC: while its timer is still in the mode for it, clearing the TSC deadline stops it.
        write(vcpu, &self.msrs)?;
        vcpu.set_lapic(&self.lapic).map_err(call("KVM_SET_LAPIC"))?;
        // Last what was pending, also of what the calls before raised.
        vcpu.set_vcpu_events(&self.events).map_err(call("KVM_SET_VCPU_EVENTS"))?;
        vcpu.set_mp_state(self.mp_state).map_err(call("KVM_SET_MP_STATE"))
    }
}

#[cfg(test)]
impl State {
    /// What is not as in another one, but for the time stamp counter.
    pub fn differences(&self, other: &State) -> Vec<String> {
        let shown = |state: &State| {
            let vectors = match &state.vectors {
                Vectors::Xsave(x) => format!("{:?} {:?}", x.as_fam_struct_ref().xsave.region, x.as_slice()),
                Vectors::Fpu(fpu) => format!("{fpu:?}"),
            };
            let mut all = vec![
                ("nested".to_owned(), format!("{:?}", state.nested.as_ref().map(|n| (n.flags, n.size)))),
                ("regs".to_owned(), format!("{:?}", state.regs)),
                ("sregs".to_owned(), format!("{:?}", state.sregs)),
                ("vectors".to_owned(), vectors),
                ("debug".to_owned(), format!("{:?}", state.debug)),
                ("xcrs".to_owned(), format!("{:?}", state.xcrs)),
                ("lapic".to_owned(), format!("{:?}", state.lapic)),
                ("events".to_owned(), format!("{:?}", state.events)),
                ("mp state".to_owned(), format!("{:?}", state.mp_state)),
            ];
            let msrs = state.msrs.iter().filter(|msr| msr.index != 0x10);
            all.extend(msrs.map(|msr| (format!("msr {:#x}", msr.index), format!("{:#x}", msr.data))));
            all
        };
        let (mine, others) = (shown(self), shown(other));
        assert_eq!(mine.len(), others.len());
        mine.into_iter().zip(others).filter(|(a, b)| a != b).map(|((name, _), _)| name).collect()
    }
}

impl Vectors {
    fn of(vm: &VmFd, vcpu: &VcpuFd) -> Result<Vectors, KvmError> {
        if !vm.check_extension(Cap::Xsave) {
            return Ok(Vectors::Fpu(Box::new(vcpu.get_fpu().map_err(call("KVM_GET_FPU"))?)));
        }
        // 0 where KVM does not know of more than struct kvm_xsave holds.
        let size = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        let more = size.saturating_sub(size_of::<kvm_xsave>());
        let more = more.div_ceil(size_of::<<kvm_xsave2 as FamStruct>::Entry>());
        let mut xsave = Xsave::new(more).map_err(|_| KvmError::Call {
            call: "KVM_GET_XSAVE2 (memory for its answer)",
            source: std::io::Error::from_raw_os_error(libc::ENOMEM),
        })?;
        if size == 0 {
            let plain = vcpu.get_xsave().map_err(call("KVM_GET_XSAVE"))?;
            // SAFETY: the number of entries that follow stays as it is.
            unsafe { xsave.as_mut_fam_struct() }.xsave = plain;
        } else {
            // SAFETY: it has the size that KVM asks for; this process enables no vector features by arch_prctl, by
            // which that size could have grown since.
            unsafe { vcpu.get_xsave2(&mut xsave) }.map_err(call("KVM_GET_XSAVE2"))?;
        }
        Ok(Vectors::Xsave(xsave))
    }

    fn restore(&self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        match self {
            // SAFETY: it was made with the size that KVM asks for, which does not change.
            Vectors::Xsave(xsave) => unsafe { vcpu.set_xsave2(xsave) }.map_err(call("KVM_SET_XSAVE")),
            Vectors::Fpu(fpu) => vcpu.set_fpu(fpu).map_err(call("KVM_SET_FPU")),
        }
    }
}

/// Of a vCPU that has not run: neither in VMX operation nor in a nested guest, with AMD's global interrupt flag set.
fn nested_state(vcpu: &VcpuFd) -> Result<Box<KvmNestedStateBuffer>, KvmError> {
    let mut state = Box::new(KvmNestedStateBuffer::empty());
    vcpu.nested_state(&mut state).map_err(call("KVM_GET_NESTED_STATE"))?;
    Ok(state)
}

/// The values of those that this vCPU has.
fn read(vcpu: &VcpuFd, registers: &[u32]) -> Result<Vec<kvm_msr_entry>, KvmError> {
    let entries: Vec<kvm_msr_entry> =
        registers.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
    let mut values = Vec::new();
    in_calls(&entries, |msrs| {
        let done = vcpu.get_msrs(msrs).map_err(call("KVM_GET_MSRS"))?;
        values.extend(msrs.as_slice().iter().take(done));
        Ok(done)
    })?;
    Ok(values)
}

/// A register that KVM refuses, such as one that only reads, leaves the others as they are to be.
fn write(vcpu: &VcpuFd, values: &[kvm_msr_entry]) -> Result<(), KvmError> {
    let refused = in_calls(values, |msrs| vcpu.set_msrs(msrs).map_err(call("KVM_SET_MSRS")))?;
    for msr in refused {
        debug!("reset of a vCPU: KVM refuses {:#x} in register {:#x}", msr.data, msr.index);
    }
    Ok(())
}

/// Calls with many entries, and again behind each at which KVM stopped; gives back those.
fn in_calls(
    entries: &[kvm_msr_entry],
    mut each: impl FnMut(&mut Msrs) -> Result<usize, KvmError>,
) -> Result<Vec<kvm_msr_entry>, KvmError> {
    let mut refused = Vec::new();
    for mut rest in entries.chunks(MSRS_AT_ONCE) {
        while !rest.is_empty() {
            let mut msrs = Msrs::from_entries(rest).map_err(|_| KvmError::Call {
                call: "KVM_GET_MSRS (memory for its answer)",
                source: std::io::Error::from_raw_os_error(libc::ENOMEM),
            })?;
            let done = each(&mut msrs)?;
            refused.extend(rest.get(done));
            rest = rest.get(done + 1..).unwrap_or_default();
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refused_register_is_skipped_and_no_other() {
        let entries: Vec<kvm_msr_entry> =
            (0..300).map(|index| kvm_msr_entry { index, ..Default::default() }).collect();
        for bad in [vec![], vec![0], vec![299], vec![126, 127, 128, 129], vec![5, 255, 256]] {
            let mut taken = Vec::new();
            let refused = in_calls(&entries, |msrs| {
                let good = msrs.as_slice().iter().take_while(|msr| !bad.contains(&msr.index));
                let before = taken.len();
                taken.extend(good.map(|msr| msr.index));
                Ok(taken.len() - before)
            });
            assert_eq!(refused.unwrap().iter().map(|msr| msr.index).collect::<Vec<_>>(), bad);
            assert_eq!(taken, (0..300).filter(|index| !bad.contains(index)).collect::<Vec<_>>());
        }
    }
}
