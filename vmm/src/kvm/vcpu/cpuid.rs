//! What CPUID tells a guest: what the host's KVM supports, with this guest's topology; and which registers that gives.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::state;
use crate::kvm::{KvmError, call};
use crate::vcpu_options::DisabledExits;

const LEAF_FEATURES: u32 = 0x1;
const LEAF_CACHES: u32 = 0x4;
const LEAF_MONITOR: u32 = 0x5;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_AMD_FEATURES: u32 = 0x8000_0001;
const LEAF_AMD_CORES: u32 = 0x8000_0008;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;

const FEATURES_ECX_MONITOR: u32 = 1 << 3;
const FEATURES_ECX_TSC_DEADLINE: u32 = 1 << 24;
const FEATURES_ECX_HYPERVISOR: u32 = 1 << 31;
const FEATURES_EDX_HTT: u32 = 1 << 28;

/// What each vCPU is made by: its CPUID comes from one that fits all.
pub struct Template {
    entries: Vec<kvm_cpuid_entry2>,
    cpus: u32,
    deadline_timer: bool,
    registers: Vec<u32>,
}

impl Template {
    /// What this KVM supports, for a guest of `cpus` cores in one package.
    pub fn new(kvm: &Kvm, cpus: u32) -> Result<Template, KvmError> {
        let supported =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(call("KVM_GET_SUPPORTED_CPUID"))?;
        let deadline_timer = kvm.check_extension(Cap::TscDeadlineTimer);
        let registers = state::registers(kvm)?;
        Ok(Template { entries: supported.as_slice().to_vec(), cpus, deadline_timer, registers })
    }

    /// For a guest that executes these instructions without KVM.
    pub fn leaving(mut self, exits: DisabledExits) -> Template {
        if exits.has_mwait() {
            offer_mwait(&mut self.entries);
        }
        self
    }

    /// Model-specific registers that a vCPU may have, by number.
    pub fn registers(&self) -> &[u32] {
        &self.registers
    }

    /// Bits of a physical address.
    pub fn address_bits(&self) -> u32 {
        let entry = self.entries.iter().find(|entry| entry.function == LEAF_AMD_CORES);
        entry.map_or(36, |entry| entry.eax & 0xff)
    }

    /// For the vCPU whose local APIC has this id.
    pub fn for_vcpu(&self, id: u32) -> Result<CpuId, KvmError> {
        let is_topology = |e: &kvm_cpuid_entry2| matches!(e.function, LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2);
        let mut entries: Vec<kvm_cpuid_entry2> =
            self.entries.iter().filter(|e| !is_topology(e)).copied().collect();
        for entry in &mut entries {
            self.patch(entry, id);
        }
        for leaf in [LEAF_TOPOLOGY, LEAF_TOPOLOGY_V2] {
            if self.entries.iter().any(|e| e.function == leaf) {
                entries.extend(self.topology(leaf, id));
            }
        }
        CpuId::from_entries(&entries).map_err(|_| KvmError::Call {
            call: "KVM_SET_CPUID2 (too many entries)",
            source: std::io::Error::from_raw_os_error(libc::E2BIG),
        })
    }

    /// Bits of an APIC id that number the cores of the package.
    fn core_bits(&self) -> u32 {
        self.cpus.next_power_of_two().trailing_zeros()
    }

    fn patch(&self, entry: &mut kvm_cpuid_entry2, id: u32) {
        match entry.function {
            LEAF_FEATURES => {
                let logical = (1u32 << self.core_bits()).min(255);
                entry.ebx = entry.ebx & 0x0000_ffff | logical << 16 | (id & 0xff) << 24;
                entry.ecx |= FEATURES_ECX_HYPERVISOR;
                // KVM tells of it by a capability, since it depends on where the local APIC is.
                if self.deadline_timer {
                    entry.ecx |= FEATURES_ECX_TSC_DEADLINE;
                }
                entry.edx = match self.cpus {
                    1 => entry.edx & !FEATURES_EDX_HTT,
                    _ => entry.edx | FEATURES_EDX_HTT,
                };
            }
            // Cores in the package and threads that share the cache, each less one; a level-3 cache is the package's.
            LEAF_CACHES => {
                let level = entry.eax >> 5 & 0x7;
                let sharing = if level >= 3 { (1 << self.core_bits()) - 1 } else { 0 };
                let cores = ((1u32 << self.core_bits()) - 1).min(63);
                entry.eax = entry.eax & 0x3fff | sharing << 14 | cores << 26;
            }
            // CmpLegacy: the logical processors of leaf 1 are cores, not threads.
            LEAF_AMD_FEATURES if self.cpus > 1 => entry.ecx |= 1 << 1,
            LEAF_AMD_CORES => {
                entry.ecx = entry.ecx & !0xf0ff | self.core_bits() << 12 | (self.cpus - 1).min(255);
            }
            LEAF_AMD_TOPOLOGY => {
                entry.eax = id;
                entry.ebx = id & 0xff;
                entry.ecx = 0;
            }
            _ => {}
        }
    }

    /// One thread a core, all cores in the package (Intel SDM vol. 2A, CPUID leaf 0BH).
    fn topology(&self, leaf: u32, id: u32) -> [kvm_cpuid_entry2; 3] {
        let level = |index, shift, processors, kind: u32| kvm_cpuid_entry2 {
            function: leaf,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: processors,
            ecx: kind << 8 | index,
            edx: id,
            ..kvm_cpuid_entry2::default()
        };
        [level(0, 0, 1, 1), level(1, self.core_bits(), self.cpus, 2), level(2, 0, 0, 0)]
    }
}

/// KVM leaves MONITOR and MWAIT out of what it supports, since by default they do nothing in a guest. Their leaf is the
/// processor's own.
fn offer_mwait(entries: &mut Vec<kvm_cpuid_entry2>) {
    let own = std::arch::x86_64::__cpuid(LEAF_MONITOR);
    entries.retain(|entry| entry.function != LEAF_MONITOR);
    entries.push(kvm_cpuid_entry2 {
        function: LEAF_MONITOR,
        eax: own.eax,
        ebx: own.ebx,
        ecx: own.ecx,
        edx: own.edx,
        ..kvm_cpuid_entry2::default()
    });
    for entry in entries.iter_mut().filter(|entry| entry.function == LEAF_FEATURES) {
        entry.ecx |= FEATURES_ECX_MONITOR;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(cpus: u32) -> Template {
        let entry = |function, index| kvm_cpuid_entry2 { function, index, ..kvm_cpuid_entry2::default() };
        let entries = vec![entry(1, 0), entry(4, 0), entry(0xb, 0), entry(0xb, 1)];
        Template { entries, cpus, deadline_timer: true, registers: Vec::new() }
    }

    #[test]
    fn each_vcpu_finds_its_own_id_and_all_cores() {
        let cpuid = template(6).for_vcpu(5).unwrap();
        let find = |function, index| {
            *cpuid.as_slice().iter().find(|e| (e.function, e.index) == (function, index)).unwrap()
        };
        assert_eq!(find(1, 0).ebx >> 16, 0x0508);
        assert_ne!(find(1, 0).ecx & FEATURES_ECX_HYPERVISOR, 0);
        assert_eq!((find(0xb, 0).ebx, find(0xb, 0).edx), (1, 5));
        assert_eq!((find(0xb, 1).eax, find(0xb, 1).ebx, find(0xb, 1).edx), (3, 6, 5));
        assert_eq!(find(0xb, 2).ecx, 2);
        assert_eq!(cpuid.as_slice().len(), 5);
    }

    #[test]
    fn a_single_vcpu_has_no_threads() {
        let cpuid = template(1).for_vcpu(0).unwrap();
        let features = cpuid.as_slice().iter().find(|e| e.function == 1).unwrap();
        assert_eq!(features.edx & FEATURES_EDX_HTT, 0);
        assert_eq!(features.ebx >> 16 & 0xff, 1);
    }
}
