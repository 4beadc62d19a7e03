//! How a function is reset: the first way of the kernel's ladder that it has, or its bus.

use std::fs::File;
use std::io;

use super::busy;
use super::ioas::Membership;
use super::ioctl::device;
use super::ioctl::hot_reset::{self, Affected};
use super::sysfs;
use crate::host::ResetMethod;
use crate::pci::HostAddress;
use crate::pci::capability::{self, read_u16, read_u32};
use crate::pci::registers::capability_id;

/// Why a function of a VM cannot be reset.
#[derive(Debug, thiserror::Error)]
pub enum NoReset {
    /// Neither the function nor its bus.
    #[error("it has no reset of its own, and its bus none that the kernel could do ({0})")]
    Bus(#[source] io::Error),
    /// Its bus, but not without others.
    #[error("it has no reset of its own, and one of its bus would also reset {}", others(.0))]
    Others(Vec<Other>),
    /// Its bus, but with functions that are in the guest already.
    #[error("it has no reset of its own, and one of its bus would also reset {}, which the guest uses", names(.0))]
    InUse(Vec<HostAddress>),
}

fn names(addresses: &[HostAddress]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// A function that a reset would take along, and that is not this VM's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Where it is in the host.
    pub address: HostAddress,
    /// The driver that holds it.
    pub driver: Option<String>,
}

fn others(others: &[Other]) -> String {
    let one = |other: &Other| match &other.driver {
        Some(driver) if !sysfs::is_vfio(driver) => format!("{}, which {driver} holds", other.address),
        Some(_) => format!("{}, which this VM does not have", other.address),
        None => format!("{}, which no driver holds (bind it to vfio-pci)", other.address),
    };
    others.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What a reset of this function does.
pub enum Reset {
    /// The kernel resets the function alone (`VFIO_DEVICE_RESET`).
    Alone(ResetMethod),
    /// Its bus or slot, with everything there (`VFIO_DEVICE_PCI_HOT_RESET`).
    Hot {
        /// All of that.
        affected: Vec<Affected>,
        /// Of that, the VM's other functions.
        with: Vec<HostAddress>,
    },
}

impl Reset {
    /// What the kernel does when it resets the function alone. `raw` is its configuration space, which tells where the
    /// kernel does not (before Linux 5.15).
    pub fn alone(address: HostAddress, raw: &[u8]) -> Reset {
        let named = sysfs::reset_method(address).and_then(|word| method(&word));
        Reset::Alone(named.unwrap_or_else(|| from_capabilities(raw)))
    }

    /// A reset of the bus or slot of the function at `address`, if nothing is there that is not this VM's, and nothing that
    /// the guest has already: `together` are the functions that are opened for it now.
    pub fn hot(
        device: &File,
        membership: &Membership,
        address: HostAddress,
        together: &[HostAddress],
    ) -> Result<Reset, NoReset> {
        let affected = hot_reset::affected(device).map_err(NoReset::Bus)?;
        let others = strangers(&affected, |affected| membership.may_reset(affected), sysfs::driver);
        if !others.is_empty() {
            return Err(NoReset::Others(others));
        }
        let with = siblings(&affected, address, |other| membership.is_open(other));
        match with.iter().copied().filter(|other| !together.contains(other)).collect::<Vec<_>>() {
            in_use if in_use.is_empty() => Ok(Reset::Hot { affected, with }),
            in_use => Err(NoReset::InUse(in_use)),
        }
    }

    /// For the report of the function.
    pub fn method(&self) -> ResetMethod {
        match self {
            Reset::Alone(method) => method.clone(),
            Reset::Hot { with, .. } if with.is_empty() => ResetMethod::Bus,
            Reset::Hot { with, .. } => {
                ResetMethod::BusWith(with.iter().map(|other| other.to_string().into()).collect())
            }
        }
    }

    /// Does it, for the function at `address`.
    pub fn carry_out(&self, device: &File, membership: &Membership, address: HostAddress) -> io::Result<()> {
        let once = || match self {
            Reset::Alone(_) => device::reset(device),
            Reset::Hot { affected, with } => {
                // One that came to the VM later must not be reset without its knowledge.
                let open = siblings(affected, address, |other| membership.is_open(other));
                if open.iter().any(|other| !with.contains(other)) {
                    return Err(io::Error::from_raw_os_error(libc::EBUSY));
                }
                membership.hot_reset(device, affected)
            }
        };
        // EBUSY of a reset of the bus: a function there is just being reset or mapped.
        busy::retried(&[libc::EAGAIN, libc::EBUSY], once)
    }
}

/// The VM's other functions among those that a reset of the one at `address` resets.
fn siblings(
    affected: &[Affected],
    address: HostAddress,
    is_open: impl Fn(HostAddress) -> bool,
) -> Vec<HostAddress> {
    let others = affected.iter().map(|affected| affected.address);
    others.filter(|other| *other != address && is_open(*other)).collect()
}

/// The functions that keep a VM from a hot reset: those of others, and those that the kernel's VFIO does not know, which
/// it would not reset (`vfio_pci_dev_set_resettable`).
fn strangers(
    affected: &[Affected],
    may_reset: impl Fn(&Affected) -> bool,
    driver: impl Fn(HostAddress) -> Option<String>,
) -> Vec<Other> {
    let all = affected.iter().map(|affected| {
        let driver = driver(affected.address);
        let ours = may_reset(affected) && driver.as_deref().is_some_and(sysfs::is_vfio);
        (ours, Other { address: affected.address, driver })
    });
    all.filter(|(ours, _)| !ours).map(|(_, other)| other).collect()
}

/// A word of sysfs' `reset_method` (Documentation/ABI/testing/sysfs-bus-pci), of which the first is what is done.
fn method(word: &str) -> Option<ResetMethod> {
    Some(match word {
        "device_specific" | "acpi" => ResetMethod::Own,
        "flr" => ResetMethod::FunctionLevel,
        "af_flr" => ResetMethod::AdvancedFeatures,
        "pm" => ResetMethod::Power,
        "bus" | "cxl_bus" => ResetMethod::Bus,
        _ => return None,
    })
}

/// Device capabilities of the PCI Express capability, and the bit that announces function-level reset there.
const DEVICE_CAPABILITIES: u16 = 4;
const FUNCTION_LEVEL_RESET: u32 = 1 << 28;
/// Capabilities register of the Advanced Features capability: transactions pending and function-level reset.
const AF_CAPABILITIES: u16 = 3;
const AF_RESET: u16 = 0x03;
/// Control and status register of the power management capability, and its "no soft reset" bit.
const POWER_CONTROL: u16 = 4;
const NO_SOFT_RESET: u16 = 1 << 3;

fn from_capabilities(raw: &[u8]) -> ResetMethod {
    let (list, _) = capability::walk(raw);
    let has = |id: u8, test: &dyn Fn(u16) -> bool| list.iter().any(|c| c.id == id && test(c.offset));
    if has(capability_id::EXPRESS, &|at| read_u32(raw, at + DEVICE_CAPABILITIES) & FUNCTION_LEVEL_RESET != 0)
    {
        ResetMethod::FunctionLevel
    } else if has(capability_id::ADVANCED_FEATURES, &|at| {
        read_u16(raw, at + AF_CAPABILITIES) & AF_RESET == AF_RESET
    }) {
        ResetMethod::AdvancedFeatures
    } else if has(capability_id::POWER, &|at| read_u16(raw, at + POWER_CONTROL) & NO_SOFT_RESET == 0) {
        ResetMethod::Power
    } else {
        ResetMethod::Bus
    }
}

#[cfg(test)]
mod tests {
    use super::super::ioctl::hot_reset::Owner;
    use super::*;

    fn affected(text: &str, owner: Owner) -> Affected {
        Affected { address: text.parse().unwrap(), owner }
    }

    #[test]
    fn every_word_of_the_kernel_has_its_method() {
        for (word, shown) in [
            ("device_specific", "device-specific"),
            ("acpi", "device-specific"),
            ("flr", "FLR"),
            ("af_flr", "AF-FLR"),
            ("pm", "PM (D3hot to D0)"),
            ("bus", "bus"),
            ("cxl_bus", "bus"),
        ] {
            assert_eq!(method(word).unwrap().to_string(), shown);
        }
        assert_eq!(method("something_new"), None);
    }

    /// PCI Express at 0x40, Advanced Features at 0x80, power management at 0x90.
    fn raw(flr: bool, af: u8, no_soft_reset: bool) -> Vec<u8> {
        let mut raw = vec![0u8; 256];
        (raw[0x06], raw[0x34]) = (0x10, 0x40);
        raw[0x40..0x44].copy_from_slice(&[capability_id::EXPRESS, 0x80, 0x02, 0]);
        raw[0x47] = if flr { 0x10 } else { 0 };
        raw[0x80..0x84].copy_from_slice(&[capability_id::ADVANCED_FEATURES, 0x90, 6, af]);
        raw[0x90..0x94].copy_from_slice(&[capability_id::POWER, 0, 3, 0]);
        raw[0x94] = if no_soft_reset { 0x08 } else { 0 };
        raw
    }

    #[test]
    fn old_kernels_methods_are_told_by_the_capabilities() {
        for (raw, expected) in [
            (raw(true, 3, false), ResetMethod::FunctionLevel),
            (raw(false, 3, false), ResetMethod::AdvancedFeatures),
            (raw(false, 2, false), ResetMethod::Power),
            (raw(false, 1, true), ResetMethod::Bus),
            (vec![0; 256], ResetMethod::Bus),
            (vec![0xff; 256], ResetMethod::Bus),
            (Vec::new(), ResetMethod::Bus),
        ] {
            assert_eq!(from_capabilities(&raw), expected);
        }
    }

    #[test]
    fn a_hot_reset_names_those_of_the_same_vm() {
        let all = ["0000:03:00.0", "0000:03:00.1", "0000:03:00.2"].map(|text| affected(text, Owner::Caller));
        let addresses = all.map(|affected| affected.address);
        let method = |is_open: &dyn Fn(HostAddress) -> bool| {
            let with = siblings(&all, addresses[0], is_open);
            Reset::Hot { affected: all.to_vec(), with }.method()
        };
        assert_eq!(method(&|other| other == addresses[0]), ResetMethod::Bus);
        let with = method(&|other| other != addresses[2]);
        assert_eq!(with.to_string(), "bus, together with 0000:03:00.1");
        let in_use = NoReset::InUse(addresses[1..].to_vec()).to_string();
        assert!(in_use.contains("0000:03:00.1 and 0000:03:00.2, which the guest uses"), "{in_use}");
    }

    #[test]
    fn what_is_in_the_way_of_a_hot_reset_is_named_with_its_reason() {
        let all = [
            affected("0000:03:00.0", Owner::Group(1)),
            affected("0000:03:00.1", Owner::Group(2)),
            affected("0000:03:00.2", Owner::Group(3)),
            affected("0000:03:00.3", Owner::Group(1)),
        ];
        let driver = |address: HostAddress| match address.slot().function() {
            1 => Some("e1000".to_owned()),
            3 => None,
            _ => Some("vfio-pci".to_owned()),
        };
        let found = strangers(&all, |affected| affected.owner == Owner::Group(1), driver);
        assert_eq!(
            NoReset::Others(found).to_string(),
            "it has no reset of its own, and one of its bus would also reset 0000:03:00.1, which e1000 holds; \
             0000:03:00.2, which this VM does not have; 0000:03:00.3, which no driver holds (bind it to vfio-pci)"
        );
        assert_eq!(strangers(&all[..1], |_| true, driver), []);
    }
}
