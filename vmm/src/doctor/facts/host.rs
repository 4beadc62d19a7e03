//! The host in general.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::access::{self, Access};
use super::iommu::{self, Unit};
use super::kvm;
pub use super::kvm::Kvms;
use crate::memory::{PoolState, pool_state};

/// What is known of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// As `uname -r`.
    pub kernel: String,
    /// The kernel's command line.
    pub command_line: String,
    /// What kind of virtualization the processor says that it has.
    pub virtualization: Virtualization,
    /// A hypervisor runs this host.
    pub is_guest: bool,
    /// What came of making a VM.
    pub kvm: Kvms,
    /// Name of the group of `/dev/kvm` whose members may open it.
    pub kvm_group: Option<String>,
    /// The processor's KVM module is loaded.
    pub kvm_loaded: bool,
    /// What firmware says of an IOMMU.
    pub table: Table,
    /// Groups of functions behind an IOMMU.
    pub groups: usize,
    /// Groups that VFIO made of functions that are behind none (`enable_unsafe_noiommu_mode`).
    pub groups_without_iommu: usize,
    /// IOMMU units that the kernel uses.
    pub units: Vec<Unit>,
    /// Interrupt remapping is on; nothing when it cannot be told.
    pub remapping: Option<bool>,
    /// Who was told to do without interrupt remapping.
    pub unsafe_interrupts: UnsafeInterrupts,
    /// vfio-pci.
    pub vfio_pci: Module,
    /// vfio-pci was told to leave functions in D0 while nobody has them open (`disable_idle_d3`).
    pub stays_in_d0: bool,
    /// `/dev/vfio/vfio`.
    pub container: Access,
    /// `/dev/iommu`.
    pub iommufd: Access,
    /// iommufd.
    pub iommufd_module: Module,
    /// How this host's kernel command line is changed.
    pub boot: Boot,
    /// Of `/proc/meminfo`, in bytes.
    pub memory: Memory,
    /// Reserved huge pages of 2 MiB.
    pub huge_pages: Option<PoolState>,
    /// Most DMA mappings of a container.
    pub dma_entries: Option<u64>,
    /// Processors that run.
    pub processors: u64,
    /// Address ranges that the firmware's frame buffer takes, which only root sees.
    pub frame_buffers: Vec<Range<u64>>,
}

/// The processor's virtualization, by the flag that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtualization {
    /// `vmx`, Intel.
    Vmx,
    /// `svm`, AMD.
    Svm,
    /// None of them.
    None,
}

/// Who was told to do without interrupt remapping (`allow_unsafe_interrupts`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnsafeInterrupts {
    /// VFIO's IOMMU driver, for functions that are opened by group and container.
    pub container: bool,
    /// iommufd, for those that are opened by their own files.
    pub iommufd: bool,
}

/// The ACPI table by which firmware describes an IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Intel VT-d.
    Dmar,
    /// AMD-Vi.
    Ivrs,
    /// There is none.
    None,
}

/// A kernel module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// Part of the running kernel.
    Loaded,
    /// It can be loaded.
    Available,
    /// This kernel's modules do not have it.
    Missing,
}

/// Who puts a parameter on the kernel's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// `/etc/default/grub` and update-grub (Debian, Ubuntu).
    UpdateGrub,
    /// grubby (Fedora, RHEL).
    Grubby,
    /// `/etc/kernel/cmdline` and proxmox-boot-tool.
    Proxmox,
    /// `/etc/kernel/cmdline` and kernel-install (systemd-boot).
    KernelInstall,
    /// Something else.
    Unknown,
}

/// Of `/proc/meminfo`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// To be had without swapping.
    pub available: u64,
    /// Swap that is free.
    pub swap: u64,
    /// What processes may still be promised, where the host keeps book of it (`vm.overcommit_memory` is 2).
    pub promise: Option<u64>,
    /// The most that one mapping may be promised, where the host refuses what is out of proportion (it is 0).
    pub proportion: Option<u64>,
}

impl Host {
    /// Reads it.
    pub fn read() -> Host {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = text("/proc/cpuinfo");
        let kernel = text("/proc/sys/kernel/osrelease").trim().to_owned();
        let virtualization = virtualization(&cpu);
        let exists = |path: &str| Path::new(path).exists();
        let parameter = |module: &str, name: &str| text(&format!("/sys/module/{module}/parameters/{name}"));
        let is_on = |module: &str, name: &str| parameter(module, name).trim() == "Y";
        let (groups, groups_without_iommu) = iommu::groups();
        Host {
            vfio_pci: module(&kernel, "vfio-pci", exists("/sys/bus/pci/drivers/vfio-pci")),
            iommufd_module: module(&kernel, "iommufd", exists("/sys/module/iommufd")),
            kernel,
            command_line: text("/proc/cmdline").trim().to_owned(),
            virtualization,
            is_guest: has_flag(&cpu, "hypervisor"),
            kvm: kvm::look(),
            kvm_group: group_of(Path::new("/dev/kvm"), &text("/etc/group")),
            kvm_loaded: exists("/sys/module/kvm_intel") || exists("/sys/module/kvm_amd"),
            table: match exists("/sys/firmware/acpi/tables/DMAR") {
                true => Table::Dmar,
                false if exists("/sys/firmware/acpi/tables/IVRS") => Table::Ivrs,
                false => Table::None,
            },
            groups,
            groups_without_iommu,
            units: iommu::units(),
            remapping: remapping(&text("/proc/interrupts")),
            unsafe_interrupts: UnsafeInterrupts {
                container: is_on("vfio_iommu_type1", "allow_unsafe_interrupts"),
                iommufd: is_on("iommufd", "allow_unsafe_interrupts"),
            },
            stays_in_d0: is_on("vfio_pci", "disable_idle_d3"),
            container: access::of(Path::new("/dev/vfio/vfio")),
            iommufd: access::of(Path::new("/dev/iommu")),
            boot: boot(exists),
            memory: memory(&text("/proc/meminfo"), text("/proc/sys/vm/overcommit_memory").trim()),
            huge_pages: pool_state(),
            dma_entries: parameter("vfio_iommu_type1", "dma_entry_limit").trim().parse().ok(),
            processors: cpu.lines().filter(|line| line.starts_with("processor")).count() as u64,
            frame_buffers: frame_buffers(&text("/proc/iomem")),
        }
    }
}

fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|word| word == flag))
}

fn virtualization(cpuinfo: &str) -> Virtualization {
    if has_flag(cpuinfo, "vmx") {
        Virtualization::Vmx
    } else if has_flag(cpuinfo, "svm") {
        Virtualization::Svm
    } else {
        Virtualization::None
    }
}

/// The name of a file's group, if its members may read and write it.
fn group_of(path: &Path, groups: &str) -> Option<String> {
    let file = fs::metadata(path).ok().filter(|file| file.mode() & 0o060 == 0o060)?;
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(file.gid())).then(|| name.to_owned())
    };
    groups.lines().find_map(line)
}

/// The names of interrupt chips start with `IR-` where interrupts are remapped (`intel_ir_chip`, `amd_ir_chip`). Without
/// a name that would have it, nothing is known.
fn remapping(interrupts: &str) -> Option<bool> {
    let words = || interrupts.lines().flat_map(str::split_whitespace);
    if words().any(|word| word.starts_with("IR-")) {
        return Some(true);
    }
    words().any(|word| word.starts_with("IO-APIC") || word.starts_with("PCI-MSI")).then_some(false)
}

fn module(kernel: &str, name: &str, is_loaded: bool) -> Module {
    let listed = |file: &str| {
        let text = fs::read_to_string(format!("/lib/modules/{kernel}/{file}")).unwrap_or_default();
        let file = format!("/{name}.ko");
        text.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&file)))
    };
    if is_loaded || listed("modules.builtin") {
        Module::Loaded
    } else if listed("modules.dep") {
        Module::Available
    } else {
        Module::Missing
    }
}

fn boot(exists: impl Fn(&str) -> bool) -> Boot {
    let program =
        |name: &str| ["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|at| exists(&format!("{at}/{name}")));
    let command_line = exists("/etc/kernel/cmdline");
    if command_line && program("proxmox-boot-tool") {
        Boot::Proxmox
    } else if exists("/etc/default/grub") && program("update-grub") {
        Boot::UpdateGrub
    } else if program("grubby") {
        Boot::Grubby
    } else if command_line && program("kernel-install") {
        Boot::KernelInstall
    } else {
        Boot::Unknown
    }
}

/// `overcommit` is `vm.overcommit_memory` (Linux `Documentation/mm/overcommit-accounting.rst`).
fn memory(meminfo: &str, overcommit: &str) -> Memory {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.unwrap_or_default().saturating_mul(1024)
    };
    let total = bytes("MemTotal");
    Memory {
        total,
        available: bytes("MemAvailable"),
        swap: bytes("SwapFree"),
        promise: (overcommit == "2").then(|| bytes("CommitLimit").saturating_sub(bytes("Committed_AS"))),
        proportion: (overcommit == "0").then(|| total + bytes("SwapTotal")),
    }
}

/// What takes the frame buffer that firmware set up (`drivers/firmware/sysfb.c`).
const FRAME_BUFFERS: [&str; 5] = ["BOOTFB", "efifb", "vesafb", "simplefb", "simple-framebuffer"];

fn frame_buffers(iomem: &str) -> Vec<Range<u64>> {
    let line = |line: &str| {
        let (range, name) = line.split_once(" : ")?;
        let (first, last) = range.trim().split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let range = number(first)?..number(last)?.saturating_add(1);
        // Others than root see zeroes.
        (FRAME_BUFFERS.iter().any(|buffer| name.trim().starts_with(buffer)) && range.end > 1).then_some(range)
    };
    iomem.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remapped_interrupts_have_chips_of_other_names() {
        for (interrupts, expected) in [
            ("  4:  9  IR-IO-APIC    4-edge      ttyS0\n", Some(true)),
            (
                " 24:  0  DMAR-MSI    0-edge      dmar0\n 25: 1 IR-PCI-MSI-0000:00:04.0 0-edge nvme0\n",
                Some(true),
            ),
            ("  4:  9  IO-APIC   4-edge      ttyS0\n", Some(false)),
            (" 26:  9  PCI-MSIX-0000:00:02.0   0-edge virtio0\n", Some(false)),
            ("NMI:  0  Non-maskable interrupts\n", None),
            ("", None),
        ] {
            assert_eq!(remapping(interrupts), expected, "{interrupts}");
        }
    }

    #[test]
    fn how_the_command_line_is_changed() {
        for (files, expected) in [
            (&["/etc/default/grub", "/usr/sbin/update-grub"][..], Boot::UpdateGrub),
            (&["/etc/default/grub", "/usr/sbin/grubby"], Boot::Grubby),
            (&["/etc/kernel/cmdline", "/usr/bin/kernel-install"], Boot::KernelInstall),
            (
                &[
                    "/etc/kernel/cmdline",
                    "/usr/sbin/proxmox-boot-tool",
                    "/etc/default/grub",
                    "/usr/sbin/update-grub",
                ],
                Boot::Proxmox,
            ),
            (&["/etc/default/grub"], Boot::Unknown),
        ] {
            assert_eq!(boot(|path| files.contains(&path)), expected, "{files:?}");
        }
    }

    #[test]
    fn small_texts() {
        let cpu = "processor\t: 0\nflags\t\t: fpu svm hypervisor\nprocessor\t: 1\n";
        assert_eq!((virtualization(cpu), has_flag(cpu, "hyper")), (Virtualization::Svm, false));
        assert_eq!(virtualization("flags : vmx"), Virtualization::Vmx);
        let text = "MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\nSwapTotal: 512 kB\nSwapFree: 256 kB\n\
                    CommitLimit: 300 kB\nCommitted_AS: 100 kB\n";
        let expected = Memory { total: 2 << 20, available: 1 << 20, swap: 1 << 18, ..Memory::default() };
        assert_eq!(memory(text, "0"), Memory { proportion: Some(5 << 19), ..expected });
        assert_eq!(memory(text, "1"), expected);
        assert_eq!(memory(text, "2"), Memory { promise: Some(200 << 10), ..expected });
        let iomem = "c0000000-cfffffff : PCI Bus\n  c0000000-c02fffff : BOOTFB\n  d0000000-d0000fff : nvme\n";
        assert_eq!(frame_buffers(iomem), [0xc000_0000..0xc030_0000]);
        assert!(frame_buffers("00000000-00000000 : BOOTFB\n").is_empty(), "not root");
    }
}
