//! A host of files, for tests: as much of sysfs and /proc as is looked at.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Host;

/// It goes away when dropped.
pub struct TestHost {
    folder: TempDir,
    pub host: Host,
}

impl TestHost {
    pub fn new() -> TestHost {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let host = Host {
            sysfs: at("sys"),
            processes: at("proc"),
            nodes: at("dev"),
            at_boot: at("etc/ppt_aliases"),
            until_off: at("run/ppt_aliases"),
            etc: at("etc"),
        };
        for directory in [
            "sys/bus/pci/devices",
            "sys/bus/pci/drivers",
            "sys/kernel/iommu_groups",
            "proc/self",
            "proc/1/fd",
            "dev",
            "etc",
        ] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        TestHost { folder, host }
    }

    /// A path below `sys`, `proc`, `etc`.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> &TestHost {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), text).unwrap();
        self
    }

    pub fn directory(&self, name: &str) -> &TestHost {
        fs::create_dir_all(self.at(name)).unwrap();
        self
    }

    /// `name` leads to `target`, both below the same folder.
    pub fn link(&self, name: &str, target: &str) -> &TestHost {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        symlink(self.at(target), self.at(name)).unwrap();
        self
    }

    /// A function on bus 0 with ids `VVVV:DDDD`, a class, a group and a driver, if any; its directory.
    pub fn function(
        &self,
        address: &str,
        ids: &str,
        class: u32,
        group: Option<u32>,
        driver: Option<&str>,
    ) -> String {
        let directory = format!("sys/devices/pci0000:00/{address}");
        let (vendor, device) = ids.split_once(':').unwrap();
        for (file, text) in [
            ("vendor", format!("0x{vendor}\n")),
            ("device", format!("0x{device}\n")),
            ("class", format!("{class:#08x}\n")),
            ("revision", "0x01\n".to_owned()),
            ("subsystem_vendor", "0x1af4\n".to_owned()),
            ("subsystem_device", "0x1100\n".to_owned()),
            ("driver_override", "(null)\n".to_owned()),
        ] {
            self.write(&format!("{directory}/{file}"), &text);
        }
        self.link(&format!("sys/bus/pci/devices/{address}"), &directory);
        if let Some(group) = group {
            let members = format!("sys/kernel/iommu_groups/{group}");
            self.directory(&format!("{members}/devices"));
            self.link(&format!("{directory}/iommu_group"), &members);
            self.link(&format!("{members}/devices/{address}"), &directory);
        }
        if let Some(driver) = driver {
            let of = format!("sys/bus/pci/drivers/{driver}");
            self.directory(&of).link(&format!("{directory}/driver"), &of);
        }
        directory
    }

    /// It is a bridge.
    pub fn bridge(&self, directory: &str) {
        self.write(&format!("{directory}/secondary_bus_number"), "1\n");
    }

    /// A block device with this number; its directory is `path`.
    pub fn block(&self, path: &str, number: &str) -> &TestHost {
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        self.write(&format!("{path}/dev"), &format!("{number}\n"));
        self.link(&format!("sys/dev/block/{number}"), path).link(&format!("sys/class/block/{name}"), path)
    }
}
