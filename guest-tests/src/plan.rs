use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::{DiskImage, Failure, Iommu, Provisioned, Scenario};

mod devices;
mod place;

pub use devices::FETCHED;
pub use place::{ConventionalBus, Place, Port};

/// Address of a function in the machine, as Linux there writes it: `0000:00:04.0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bdf(String);

impl Bdf {
    /// `address` as Linux in the machine wrote it.
    pub(crate) fn found(address: &str) -> Self {
        Self(address.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that QEMU has for the function.
    pub(crate) fn qemu_id(&self) -> String {
        format!("at-{}", self.0.replace([':', '.'], "-"))
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

/// The machine's kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The distribution's, the same as the guests'.
    #[default]
    Usual,
    /// Debian's 6.1: VFIO there cannot add MSI-X vectors to those in use.
    V6_1,
    /// With `/dev/iommu` and VFIO's character devices.
    Iommufd,
    /// A whole Debian on a disk of its own, with the kernel of its release: nothing of the host is in it but the scenario's
    /// directory, and it starts as any Debian does.
    Debian,
}

/// The QEMU that emulates the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emulator {
    #[default]
    Installed,
    /// One that has igb; the installed one, if it has. Emulates no AMD-Vi that Linux can use.
    Newer,
}

/// The machine before it is switched on: what it is made of.
///
/// Functions are put at `DEVICE.FUNCTION` (hexadecimal) on bus 0. Devices 0 to 3 and 1f are the machine's own.
/// Functions behind ports and bridges are placed by [`Place`].
/// A device address ending in `.0` that gets further functions must be added with [`Plan::multifunction`] set before.
#[derive(Debug)]
pub struct Plan {
    iommu: Iommu,
    memory_mib: u32,
    cpus: u8,
    /// An instruction takes a nanosecond.
    icount: bool,
    multifunction: bool,
    kernel: Kernel,
    emulator: Emulator,
    /// The drive with a whole Debian, if it is the scenario's own.
    system: Option<DiskImage>,
    /// That drive's boot loader starts the kernel.
    has_boot_loader: bool,
    /// The machine has an IOMMU.
    has_iommu: bool,
    /// What the IOMMU needs on the kernel's command line, unless it is said otherwise.
    iommu_words: String,
    /// The highest number of a bus.
    buses: u8,
    backends: u32,
    networks: Vec<String>,
    /// Audio backends, and the files that they write.
    sounds: Vec<(String, String)>,
    functions: Vec<(Bdf, String)>,
    arguments: Vec<String>,
}

impl Plan {
    pub fn new(iommu: Iommu) -> Self {
        Self {
            iommu,
            memory_mib: 2048,
            cpus: 1,
            icount: false,
            multifunction: false,
            kernel: Kernel::default(),
            emulator: Emulator::default(),
            system: None,
            has_boot_loader: false,
            has_iommu: true,
            iommu_words: iommu.kernel_words().to_owned(),
            buses: 0,
            backends: 0,
            networks: Vec::new(),
            sounds: Vec::new(),
            functions: Vec::new(),
            arguments: Vec::new(),
        }
    }

    pub fn memory_mib(&mut self, mib: u32) {
        self.memory_mib = mib;
    }

    /// More than one processor is for what needs them and not for guests of several vCPUs: QEMU runs them in turns on
    /// one thread, where such guests stall. With a thread each, one now and then executes code that another has just
    /// patched, and Linux dies of it.
    pub fn cpus(&mut self, cpus: u8) {
        self.cpus = cpus;
    }

    pub(crate) fn has_several_cpus(&self) -> bool {
        self.cpus > 1
    }

    /// Every clock of the machine, its time stamp counter among them, counts instructions, one a nanosecond, and waiting takes
    /// no time: so times are numbers of instructions, the same in every run.
    pub fn count_instructions(&mut self) {
        self.icount = true;
    }

    pub(crate) fn counts_instructions(&self) -> bool {
        self.icount
    }

    pub fn kernel(&mut self, kernel: Kernel) {
        self.kernel = kernel;
    }

    /// A whole Debian on this drive, on which changes stay.
    pub fn debian_on(&mut self, drive: &DiskImage) {
        self.kernel = Kernel::Debian;
        self.system = Some(drive.clone());
    }

    /// The machine is started by the boot loader that is on that drive, which has to be there by then: with the kernel, the
    /// initramfs and the kernel's command line that it has.
    pub fn boot_loader(&mut self) {
        self.has_boot_loader = true;
    }

    pub(crate) fn is_debian(&self) -> bool {
        self.kernel == Kernel::Debian
    }

    /// Words for the machine's kernel in the place of those that turn its IOMMU on.
    pub fn iommu_words(&mut self, words: &str) {
        words.clone_into(&mut self.iommu_words);
    }

    /// Whether the machine has an IOMMU.
    pub fn iommu(&mut self, present: bool) {
        self.has_iommu = present;
    }

    pub fn emulator(&mut self, emulator: Emulator) {
        self.emulator = emulator;
    }

    /// Whether functions added from here on announce that their device has more than one.
    pub fn multifunction(&mut self, on: bool) {
        self.multifunction = on;
    }

    /// A function of QEMU's, with properties as its command line takes them: `edu,dma_mask=0xffff`.
    pub fn function<'p>(&mut self, at: impl Into<Place<'p>>, device: &str) -> Bdf {
        let at = at.into();
        let bdf = at.bdf();
        let multifunction = self.multifunction_property(at);
        let device = format!("{device},id={},{}{multifunction}", bdf.qemu_id(), at.qemu_properties());
        self.argument("-device", device.clone());
        self.functions.push((bdf.clone(), device));
        bdf
    }

    /// What QEMU was told of a function, to plug it in once more.
    pub(crate) fn functions(&self) -> &[(Bdf, String)] {
        &self.functions
    }

    fn multifunction_property(&self, at: Place<'_>) -> &'static str {
        if self.multifunction && !matches!(at, Place::Behind(_)) { ",multifunction=on" } else { "" }
    }

    fn argument(&mut self, option: &str, value: String) {
        self.arguments.extend([option.to_owned(), value]);
    }

    /// The QEMU that is this machine: console into `console.log`, commands over standard input and output, its monitor
    /// at the socket `monitor`.
    pub(crate) fn qemu(&self, scenario: &Scenario) -> Result<Command, Failure> {
        let provisioned: &Provisioned = scenario.provisioned();
        let directory = scenario.directory();
        let images = provisioned.machine_images(self.kernel)?;
        let mut qemu = Command::new("setpriv");
        // Sockets are named relative to this directory: paths of sockets are short.
        qemu.current_dir(directory)
            // So that no machine outlives a test run that is killed.
            .args(["--pdeathsig", "KILL"])
            .arg(provisioned.qemu(self.emulator)?)
            .args(["-accel", if self.cpus > 1 || self.icount { "tcg,thread=single" } else { "tcg" }])
            .args(["-cpu", provisioned.processor(self.emulator)?])
            .args(["-machine", "q35,sata=off,smbus=off"])
            .args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory_mib)])
            .args(["-nodefaults", "-display", "none"])
            .args(["-qmp", &format!("unix:{MONITOR_SOCKET},server=on,wait=off")])
            .arg("-serial")
            .arg(prefixed("file:", &directory.join("console.log")))
            .args(["-serial", "stdio"]);
        if self.icount {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        if self.kernel == Kernel::Debian {
            let drive = match &self.system {
                Some(image) => prefixed("format=raw,if=none,id=root,file=", image.path()),
                // Changes to the disk are gone with the machine.
                None => prefixed("snapshot=on,format=raw,if=none,id=root,file=", &images.join("disk.img")),
            };
            qemu.arg("-drive").arg(drive).args(["-device", "virtio-blk-pci,drive=root,addr=2.0"]);
            if !self.has_boot_loader {
                qemu.arg("-kernel")
                    .arg(images.join("vmlinuz"))
                    .arg("-initrd")
                    .arg(images.join("initrd.img"))
                    .args(["-append", &format!("{DEBIAN_KERNEL_WORDS} {}", self.iommu_words)]);
            }
        } else {
            qemu.arg("-kernel")
                .arg(images.join("vmlinux"))
                .arg("-initrd")
                .arg(images.join("l1.cpio"))
                .arg("-no-reboot")
                .args(["-append", &format!("{MACHINE_KERNEL_WORDS} {}", self.iommu_words)])
                .args(["-fsdev", "local,id=root,path=/,security_model=none,multidevs=remap,readonly=on"])
                .args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=host,addr=2.0"]);
        }
        qemu.arg("-fsdev")
            .arg(prefixed("local,id=scenario,security_model=none,path=", directory))
            .args(["-device", "virtio-9p-pci,fsdev=scenario,mount_tag=scenario,addr=3.0"]);
        if self.has_iommu {
            qemu.args(["-device", self.iommu.qemu_device()]);
        }
        if self.kernel == Kernel::Iommufd {
            // That kernel knows hot plug as PCI Express defines it, not by ACPI.
            qemu.args(["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]);
        }
        for id in &self.networks {
            let tftp = format!(",tftp={}", directory.display());
            qemu.args(["-netdev", &format!("user,id={id},restrict=on{tftp}")]);
        }
        for (id, file) in &self.sounds {
            qemu.args(["-audiodev", &format!("wav,id={id},path={file}")]);
        }
        qemu.args(&self.arguments);
        Ok(qemu)
    }
}

/// QEMU's monitor, in the scenario's directory.
pub(crate) const MONITOR_SOCKET: &str = "monitor";

fn prefixed(prefix: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(prefix);
    text.push(path);
    text
}

/// What an installed Debian has on its kernel's command line, but for the console; and that an emulated timer may be late, which
/// a busy host makes it.
const DEBIAN_KERNEL_WORDS: &str = "console=ttyS0 root=/dev/vda ro quiet no_timer_check";

/// Halves the time to boot: no mitigations, no self-tests and no start-up work of subsystems that nothing here uses.
const MACHINE_KERNEL_WORDS: &str = "console=ttyS0 panic=-1 quiet mitigations=off nokaslr rodata=off \
     cryptomgr.notests no_timer_check \
     initcall_blacklist=bpf_tcp_ca_kfunc_init,bpf_dummy_struct_ops_init,jent_mod_init,load_system_certificate_list";
