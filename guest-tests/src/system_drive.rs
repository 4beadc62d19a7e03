use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use crate::{DiskImage, Failure, Scenario, expect};

const MIB: u64 = 64;
const PARTITION_SECTOR: u32 = 2048;
const SECTOR: u64 = 512;
const PARTITION_OFFSET: u64 = PARTITION_SECTOR as u64 * SECTOR;
/// Where the partition table is in the first sector.
const TABLE_OFFSET: u64 = 446;

/// The first program of the system. It shows a text, writes it to another file, and switches off.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -o remount,rw /
echo guest has $(/bin/busybox cat /text)
/bin/busybox cp /text /written
/bin/busybox sync
/bin/busybox mount -o remount,ro /
/bin/busybox poweroff -f
";

/// A drive with one partition, and a system in it that a guest can boot from.
#[derive(Debug)]
pub struct SystemDrive(DiskImage);

impl SystemDrive {
    /// The guest prints `guest has TEXT`, and leaves the text on the drive.
    pub fn make(scenario: &Scenario, text: &str) -> Result<SystemDrive, Failure> {
        let image = scenario.blank_image("system.img", MIB)?;
        let root = scenario.directory().join("system");
        for directory in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(Failure::io("create", &path))?;
        }
        for (file, contents) in [("text", text), ("sbin/init", INIT)] {
            let path = root.join(file);
            fs::write(&path, contents).map_err(Failure::io("write", &path))?;
        }
        let script = "chmod 755 \"$1/sbin/init\" && cp /bin/busybox \"$1/bin/\" && \
                      mke2fs -q -t ext4 -d \"$1\" -E offset=$3 \"$2\" $4k";
        let kib = (MIB << 10) - (PARTITION_OFFSET >> 10);
        let status = with_sbin(Command::new("sh").args(["-c", script, "sh"]))
            .args([root.as_path(), image.path()])
            .args([PARTITION_OFFSET.to_string(), kib.to_string()])
            .status()
            .map_err(Failure::io("start", "sh"))?;
        expect!(status.success(), "mke2fs: {status}");
        File::options()
            .write(true)
            .open(image.path())
            .and_then(|file| file.write_all_at(&partition_table(), TABLE_OFFSET))
            .map_err(Failure::io("write", image.path()))?;
        Ok(SystemDrive(image))
    }

    pub fn image(&self) -> &DiskImage {
        &self.0
    }

    /// What a guest left on the drive, as the host sees it.
    pub fn written(&self) -> Result<String, Failure> {
        let file = format!("{}?offset={PARTITION_OFFSET}", Path::display(self.0.path()));
        let output = with_sbin(Command::new("debugfs").args(["-R", "cat /written", &file]))
            .output()
            .map_err(Failure::io("start", "debugfs"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Ordinary users have no such directories in their PATH.
fn with_sbin(command: &mut Command) -> &mut Command {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"))
}

/// One partition of type 0x83, Linux, and the signature of a boot record.
fn partition_table() -> [u8; 66] {
    let mut table = [0; 66];
    let sectors = ((MIB << 20) / SECTOR) as u32 - PARTITION_SECTOR;
    table[4] = 0x83;
    table[8..12].copy_from_slice(&PARTITION_SECTOR.to_le_bytes());
    table[12..16].copy_from_slice(&sectors.to_le_bytes());
    table[64..].copy_from_slice(&[0x55, 0xaa]);
    table
}
