//! KVM: the virtual machine and what this library's ports are on it.

pub mod coalesced;
pub mod events;
pub mod interrupts;
pub mod memory;
pub mod vcpu;

use std::io;
use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_HALT_POLL, KVM_CAP_X86_DISABLE_EXITS, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY, kvm_enable_cap, kvm_irqchip, kvm_pit_config,
    kvm_pit_state2,
};
use kvm_ioctls::{Kvm, VmFd};

use crate::layout;
use crate::vcpu_options::DisabledExits;

/// KVM's API has had this version since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// A call to KVM that failed.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No way to KVM.
    #[error("/dev/kvm: {source}{}", open_hint(.source))]
    Open {
        /// errno.
        source: io::Error,
    },
    /// Not the KVM that is documented.
    #[error("/dev/kvm: API version {0} instead of {API_VERSION}; this kernel is too old")]
    ApiVersion(i32),
    /// A call.
    #[error("{call}: {source}")]
    Call {
        /// The ioctl.
        call: &'static str,
        /// errno.
        source: io::Error,
    },
    /// A limit of its waiting that KVM does not take.
    #[error(
        "halt poll: this kernel's KVM has no limit for each guest (KVM_CAP_HALT_POLL, Linux 5.11); leave it out"
    )]
    NoHaltPoll,
    /// Instructions that KVM does not leave to a guest.
    #[error(
        "disable exits: this host's KVM cannot leave {missing} to a guest, but only: {offered} (KVM_CAP_X86_DISABLE_EXITS)"
    )]
    NoDisabledExits {
        /// Asked for, and not offered.
        missing: DisabledExits,
        /// What it can.
        offered: DisabledExits,
    },
}

fn open_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "; load it with `modprobe kvm_intel` or `modprobe kvm_amd`, after turning virtualization on in the \
             firmware (in a virtual machine: nested virtualization in its host)"
        }
        Some(libc::EACCES | libc::EPERM) => "; run as root or as a member of group kvm",
        Some(libc::ENOTTY | libc::EINVAL) => "; this file is not KVM's device",
        _ => "",
    }
}

/// For `map_err`: names the call.
pub(crate) fn call(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Call { call, source: error.into() }
}

/// A virtual machine with interrupt controllers and a timer in the kernel.
pub struct Vm {
    kvm: Kvm,
    fd: Arc<VmFd>,
    controllers: Vec<kvm_irqchip>,
    timer: kvm_pit_state2,
}

impl Vm {
    /// A new one.
    pub fn new() -> Result<Vm, KvmError> {
        let kvm = Kvm::new().map_err(|error| KvmError::Open { source: error.into() })?;
        let version = kvm.get_api_version();
        if version < 0 {
            return Err(KvmError::Open { source: io::Error::last_os_error() });
        }
        if version != API_VERSION {
            return Err(KvmError::ApiVersion(version));
        }
        let fd = kvm.create_vm().map_err(call("KVM_CREATE_VM"))?;
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(call("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(layout::KVM_TSS as usize).map_err(call("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(call("KVM_CREATE_IRQCHIP"))?;
        // Port 0x61 belongs to the timer as well; Linux calibrates its clock by it.
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
        fd.create_pit2(pit).map_err(call("KVM_CREATE_PIT2"))?;
        let controllers = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC]
            .into_iter()
            .map(|chip_id| {
                let mut chip = kvm_irqchip { chip_id, ..kvm_irqchip::default() };
                fd.get_irqchip(&mut chip).map_err(call("KVM_GET_IRQCHIP"))?;
                Ok(chip)
            })
            .collect::<Result<_, KvmError>>()?;
        let timer = fd.get_pit2().map_err(call("KVM_GET_PIT2"))?;
        Ok(Vm { kvm, fd: Arc::new(fd), controllers, timer })
    }

    /// The system's KVM.
    pub fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// The virtual machine's descriptor.
    pub fn fd(&self) -> &Arc<VmFd> {
        &self.fd
    }

    /// How long KVM looks for an interrupt at most before a vCPU that has halted sleeps, in nanoseconds, whatever the host's
    /// other guests have.
    pub fn set_halt_poll(&self, most: u32) -> Result<(), KvmError> {
        if self.fd.check_extension_raw(KVM_CAP_HALT_POLL.into()) <= 0 {
            return Err(KvmError::NoHaltPoll);
        }
        self.enable(KVM_CAP_HALT_POLL, most, "KVM_ENABLE_CAP (KVM_CAP_HALT_POLL)")
    }

    /// Instructions that the guest executes without an exit. No vCPU has been made.
    pub fn disable_exits(&self, exits: DisabledExits) -> Result<(), KvmError> {
        let offered = self.fd.check_extension_raw(KVM_CAP_X86_DISABLE_EXITS.into());
        let offered = DisabledExits::from_bits(u32::try_from(offered).unwrap_or(0));
        let missing = exits.without(offered);
        if !missing.is_empty() {
            return Err(KvmError::NoDisabledExits { missing, offered });
        }
        self.enable(KVM_CAP_X86_DISABLE_EXITS, exits.bits(), "KVM_ENABLE_CAP (KVM_CAP_X86_DISABLE_EXITS)")
    }

    fn enable(&self, cap: u32, argument: u32, name: &'static str) -> Result<(), KvmError> {
        let mut enable = kvm_enable_cap { cap, ..kvm_enable_cap::default() };
        let [first, ..] = &mut enable.args;
        *first = argument.into();
        self.fd.enable_cap(&enable).map_err(call(name))
    }

    /// Interrupt controllers and timer back to their state after power-on.
    pub fn reset(&self) -> Result<(), KvmError> {
        for chip in &self.controllers {
            self.fd.set_irqchip(chip).map_err(call("KVM_SET_IRQCHIP"))?;
        }
        self.fd.set_pit2(&self.timer).map_err(call("KVM_SET_PIT2"))
    }
}
