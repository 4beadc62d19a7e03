//! IOMMU groups, and who is in them.

use std::fs;
use std::path::Path;

use super::{DEVICES, is_vfio, link_name};
use crate::pci::HostAddress;

/// Where Linux lists groups.
pub const GROUPS: &str = "/sys/kernel/iommu_groups";

/// The group of the function in this directory.
pub fn number(directory: &Path) -> Option<u32> {
    link_name(&directory.join("iommu_group"))?.parse().ok()
}

/// VFIO made the group in this directory for a function that is behind no IOMMU, because it was told to do without
/// (`enable_unsafe_noiommu_mode`; `vfio_noiommu_group_alloc` in `drivers/vfio/group.c`). There are no containers of the usual
/// kind for such a group, and no guest can have it.
pub fn is_without_iommu(group: &Path) -> bool {
    fs::read_to_string(group.join("name")).is_ok_and(|name| name.trim_end() == "vfio-noiommu")
}

/// A member of a group and the driver that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is in the host.
    pub address: HostAddress,
    /// The driver that holds it.
    pub driver: Option<String>,
}

/// The functions of a group that are in VFIO's way: bound to drivers of the host. Bridges and functions without a
/// driver are not (`vfio_dev_viable` in `drivers/vfio/group.c`).
pub fn offenders(address: HostAddress) -> Vec<Member> {
    offenders_in(Path::new(DEVICES), address)
}

/// As [`offenders`], with the functions in `devices`, a directory such as [`DEVICES`].
pub fn offenders_in(devices: &Path, address: HostAddress) -> Vec<Member> {
    let members = devices.join(address.to_string()).join("iommu_group/devices");
    let Ok(entries) = fs::read_dir(members) else { return Vec::new() };
    let mut found: Vec<Member> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(|address: HostAddress| Member {
            address,
            driver: link_name(&devices.join(address.to_string()).join("driver")),
        })
        .filter(|member| match member.driver.as_deref() {
            None | Some("pcieport" | "pci-stub") => false,
            Some(driver) => !is_vfio(driver),
        })
        .collect();
    found.sort_by_key(|member| member.address);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_vfio_made_up_have_its_name() {
        let group = vmm_sys_util::tempdir::TempDir::new().unwrap();
        assert!(!is_without_iommu(group.as_path()));
        for (name, expected) in [("vfio-noiommu\n", true), ("another\n", false), ("\n", false)] {
            fs::write(group.as_path().join("name"), name).unwrap();
            assert_eq!(is_without_iommu(group.as_path()), expected, "{name:?}");
        }
    }
}
