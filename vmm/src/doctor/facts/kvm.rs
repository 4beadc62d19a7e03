//! KVM, by what `slotpass run` asks of it first.

use std::io;

use kvm_ioctls::Cap;

use crate::kvm::vcpu::Template;
use crate::kvm::{KvmError, Vm};

/// What came of making a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kvms {
    /// It can be made.
    Opens {
        /// Most interrupt routes of a VM.
        routes: u64,
        /// Most processors of a VM.
        cpus: usize,
        /// Bits of a guest-physical address.
        address_bits: u32,
    },
    /// It cannot.
    Fails(KvmFailure),
}

/// What failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmFailure {
    /// To open `/dev/kvm`, with this errno.
    Open(i32),
    /// An ioctl of this name, with this errno.
    Call(&'static str, i32),
    /// It is open, and not as it should be.
    Other(String),
}

/// Makes a VM with its interrupt controllers, as `slotpass run` does before anything else, and drops it.
pub fn look() -> Kvms {
    made().unwrap_or_else(|error| Kvms::Fails(failure(&error)))
}

fn made() -> Result<Kvms, KvmError> {
    let vm = Vm::new()?;
    let kvm = vm.kvm();
    let routes = u64::try_from(kvm.check_extension_int(Cap::IrqRouting)).unwrap_or_default();
    let template = Template::new(kvm, 1)?;
    Ok(Kvms::Opens { routes, cpus: kvm.get_max_vcpus(), address_bits: template.address_bits() })
}

fn failure(error: &KvmError) -> KvmFailure {
    let errno = |source: &io::Error| source.raw_os_error().unwrap_or(libc::EIO);
    match error {
        KvmError::Open { source } => KvmFailure::Open(errno(source)),
        KvmError::Call { call, source } => KvmFailure::Call(call, errno(source)),
        KvmError::ApiVersion(_) | KvmError::NoHaltPoll | KvmError::NoDisabledExits { .. } => {
            KvmFailure::Other(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_keep_their_call_and_errno() {
        let error = |errno| io::Error::from_raw_os_error(errno);
        for (failed, expected) in [
            (KvmError::Open { source: error(libc::EACCES) }, KvmFailure::Open(libc::EACCES)),
            (
                KvmError::Call { call: "KVM_CREATE_VM", source: error(libc::EBUSY) },
                KvmFailure::Call("KVM_CREATE_VM", libc::EBUSY),
            ),
        ] {
            assert_eq!(failure(&failed), expected);
        }
        let KvmFailure::Other(text) = failure(&KvmError::ApiVersion(11)) else {
            panic!("an API version is no errno");
        };
        assert!(text.contains("API version 11"), "{text}");
    }
}
