use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::{DiskImage, Iommu, Provisioned, Scenario};

/// Address of a function in the machine, as Linux there writes it: `0000:00:04.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bdf(String);

impl Bdf {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Bdf {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A PCI Express root port of the machine; holds one device.
#[derive(Debug)]
pub struct RootPort {
    id: String,
    secondary_bus: u8,
}

/// The machine before it is switched on: what it is made of.
///
/// Functions are put at `DEVICE.FUNCTION` (hexadecimal) on bus 0. Devices 0 to 3 and 1f are the machine's own.
/// A device address ending in `.0` that gets further functions must be added with [`Plan::multifunction`] set before.
#[derive(Debug)]
pub struct Plan {
    iommu: Iommu,
    memory_mib: u32,
    multifunction: bool,
    root_ports: u8,
    backends: u32,
    arguments: Vec<String>,
}

impl Plan {
    pub fn new(iommu: Iommu) -> Self {
        Self {
            iommu,
            memory_mib: 2048,
            multifunction: false,
            root_ports: 0,
            backends: 0,
            arguments: Vec::new(),
        }
    }

    pub fn memory_mib(&mut self, mib: u32) {
        self.memory_mib = mib;
    }

    /// Whether functions added from here on announce that their device has more than one.
    pub fn multifunction(&mut self, on: bool) {
        self.multifunction = on;
    }

    pub fn nvme(&mut self, at: &str, image: &DiskImage) -> Bdf {
        let device = self.nvme_device(image);
        self.on_bus_0(at, &device)
    }

    pub fn nvme_behind(&mut self, port: &RootPort, image: &DiskImage) -> Bdf {
        let device = self.nvme_device(image);
        self.behind(port, &device)
    }

    pub fn e1000e(&mut self, at: &str) -> Bdf {
        let device = self.e1000e_device();
        self.on_bus_0(at, &device)
    }

    pub fn e1000e_behind(&mut self, port: &RootPort) -> Bdf {
        let device = self.e1000e_device();
        self.behind(port, &device)
    }

    /// QEMU's teaching device: factorial unit, DMA engine (28 address bits unless `dma_mask` says more), MSI.
    pub fn edu(&mut self, at: &str, dma_mask: Option<u64>) -> Bdf {
        match dma_mask {
            Some(mask) => self.on_bus_0(at, &format!("edu,dma_mask={mask:#x}")),
            None => self.on_bus_0(at, "edu"),
        }
    }

    /// A 4 KiB memory BAR and an I/O BAR, no interrupts.
    pub fn pci_testdev(&mut self, at: &str) -> Bdf {
        self.on_bus_0(at, "pci-testdev")
    }

    /// A display whose frame buffer is a 32-bit prefetchable BAR of 16 to 256 MiB.
    pub fn display(&mut self, at: &str, mib: u32) -> Bdf {
        self.on_bus_0(at, &format!("bochs-display,vgamem={mib}M"))
    }

    /// Shared memory as a 64-bit prefetchable BAR; `image` is what the host sees of it.
    pub fn ivshmem(&mut self, at: &str, image: &DiskImage, mib: u64) -> Bdf {
        let id = self.backend();
        self.argument(
            "-object",
            format!("memory-backend-file,id={id},share=on,size={mib}M,mem-path={}", image.path().display()),
        );
        self.on_bus_0(at, &format!("ivshmem-plain,memdev={id}"))
    }

    pub fn root_port(&mut self, at: &str) -> RootPort {
        // The firmware numbers buses in the order of the ports' addresses; ports must be added in that order.
        self.root_ports += 1;
        let id = format!("port{}", self.root_ports);
        self.on_bus_0(at, &format!("pcie-root-port,id={id},chassis={}", self.root_ports));
        RootPort { id, secondary_bus: self.root_ports }
    }

    fn nvme_device(&mut self, image: &DiskImage) -> String {
        let id = self.backend();
        // The host's page cache is what the scenario looks at, so flushing to the disk below is of no use.
        self.argument(
            "-drive",
            format!("id={id},if=none,format=raw,cache=unsafe,file={}", image.path().display()),
        );
        format!("nvme,drive={id},serial={id}")
    }

    fn e1000e_device(&mut self) -> String {
        let id = self.backend();
        self.argument("-netdev", format!("user,id={id},restrict=on"));
        format!("e1000e,netdev={id}")
    }

    fn backend(&mut self) -> String {
        self.backends += 1;
        format!("backend{}", self.backends)
    }

    fn on_bus_0(&mut self, at: &str, device: &str) -> Bdf {
        let multifunction = if self.multifunction { ",multifunction=on" } else { "" };
        self.argument("-device", format!("{device},bus=pcie.0,addr={at}{multifunction}"));
        Bdf(format!("0000:00:{at:0>4}"))
    }

    fn behind(&mut self, port: &RootPort, device: &str) -> Bdf {
        self.argument("-device", format!("{device},bus={}", port.id));
        Bdf(format!("0000:{:02x}:00.0", port.secondary_bus))
    }

    fn argument(&mut self, option: &str, value: String) {
        self.arguments.extend([option.to_owned(), value]);
    }

    /// The QEMU that is this machine: console into `console.log`, commands over standard input and output.
    pub(crate) fn qemu(&self, scenario: &Scenario) -> Command {
        let provisioned: &Provisioned = scenario.provisioned();
        let directory = scenario.directory();
        let mut qemu = Command::new("setpriv");
        // So that no machine outlives a test run that is killed.
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(["-accel", "tcg", "-cpu", provisioned.processor(), "-machine", "q35,sata=off,smbus=off"])
            // One processor: with two, one now and then executes code that the other has just patched, and Linux dies
            // of it; with two in turns on one thread, its guests of two vCPUs stall.
            .args(["-smp", "1", "-m", &format!("{}M", self.memory_mib)])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-device", self.iommu.qemu_device()])
            .arg("-serial")
            .arg(prefixed("file:", &directory.join("console.log")))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(provisioned.vmlinux())
            .arg("-initrd")
            .arg(provisioned.machine_initramfs())
            .args(["-append", &format!("{MACHINE_KERNEL_WORDS} {}", self.iommu.kernel_words())])
            .args(["-fsdev", "local,id=root,path=/,security_model=none,multidevs=remap,readonly=on"])
            .args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=host,addr=2.0"])
            .arg("-fsdev")
            .arg(prefixed("local,id=scenario,security_model=none,path=", directory))
            .args(["-device", "virtio-9p-pci,fsdev=scenario,mount_tag=scenario,addr=3.0"])
            .args(&self.arguments);
        qemu
    }
}

fn prefixed(prefix: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(prefix);
    text.push(path);
    text
}

/// Halves the time to boot: no mitigations, no self-tests and no start-up work of subsystems that nothing here uses.
const MACHINE_KERNEL_WORDS: &str = "console=ttyS0 panic=-1 quiet mitigations=off nokaslr rodata=off \
     cryptomgr.notests no_timer_check \
     initcall_blacklist=bpf_tcp_ca_kfunc_init,bpf_dummy_struct_ops_init,jent_mod_init,load_system_certificate_list";
