//! What Linux says of a PCI function in sysfs, before anything is opened.

mod groups;

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, RawFd};
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::host::BARS;
use crate::pci::bar::{self, Bar, BarKind};
use crate::pci::{HostAddress, Slot};
pub use groups::{GROUPS, Member, is_without_iommu, offenders, offenders_in};

/// Where Linux lists PCI functions.
pub const DEVICES: &str = "/sys/bus/pci/devices";
/// Where Linux lists character devices by their numbers.
const CHARACTER_DEVICES: &str = "/sys/dev/char";
/// Directory of a function with the name of its device file.
const CDEV_CLASS: &str = "vfio-dev";
/// What a name starts with that means an open file.
const FILE: &str = "fd:";
/// The driver that gives functions to VFIO.
pub const DRIVER: &str = "vfio-pci";

/// A function as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysfsFunction {
    /// Where it is in the host.
    pub address: HostAddress,
    /// The driver that holds it.
    pub driver: Option<String>,
    /// Its IOMMU group; nothing without an IOMMU, unless VFIO made one of it alone ([`is_without_iommu`]).
    pub group: Option<u32>,
    /// Number of its device file in this process, if that was handed over; whoever opens the function takes it.
    pub file: Option<RawFd>,
    /// Name of its file below `/dev/vfio/devices`, where the kernel has one and a VFIO driver holds the function.
    pub cdev: Option<String>,
    /// Sizes of its BARs and their kinds, by index; size 0 where there is none.
    pub resources: [(u64, BarKind); BARS],
    /// Bytes of its expansion ROM's BAR, 0 without one.
    pub rom: u64,
    /// Vendor id in bits 15:0, device id in bits 31:16.
    pub ids: u32,
    /// Class code: base class in bits 23:16, subclass in 15:8, programming interface in 7:0.
    pub class: u32,
}

/// Vendor id of Intel.
const INTEL: u32 = 0x8086;
/// Base class and subclass of VGA controllers, and base class of all displays (PCI Code and ID Assignment 1.15 §1.4).
const VGA: u32 = 0x0300;
const DISPLAY: u32 = 0x03;

/// What is said of a function that [`is_vga`]. The ranges are those that a bridge's VGA Enable bit forwards (PCI-to-PCI Bridge
/// Architecture 1.2 §3.2.5.18).
pub const VGA_RANGES: &str = "the legacy VGA ranges (0xa0000 to 0xbffff, ports 0x3b0 to 0x3bb and 0x3c0 to 0x3df) stay the \
                              host's; a guest reaches the function by its BARs only";
/// Why a function that [`is_integrated_graphics`] cannot be passed through.
pub const INTEGRATED_GRAPHICS: &str = "it is Intel's integrated graphics, whose drivers need memory of the host's firmware \
                                       (OpRegion and stolen memory) that a guest does not have; a virtual function of it or \
                                       another graphics card can be used";

/// A function with this class code answers at the legacy VGA addresses as well.
pub fn is_vga(class: u32) -> bool {
    class >> 8 == VGA
}

/// A function with these ids and this class code, as in [`SysfsFunction`], is the graphics function of an Intel processor,
/// which is always at one address.
pub fn is_integrated_graphics(address: HostAddress, ids: u32, class: u32) -> bool {
    let place = HostAddress::new(0, Slot::from_requester_id(0x02 << 3));
    ids & 0xffff == INTEL && class >> 16 == DISPLAY && address == place
}

impl SysfsFunction {
    /// As [`is_vga`].
    pub fn is_vga(&self) -> bool {
        is_vga(self.class)
    }

    /// As [`is_integrated_graphics`].
    pub fn is_integrated_graphics(&self) -> bool {
        is_integrated_graphics(self.address, self.ids, self.class)
    }

    /// Its BARs, as far as they make sense.
    pub fn bars(&self) -> Vec<Bar> {
        let mut registers = [0; BARS];
        for (register, (_, kind)) in registers.iter_mut().zip(self.resources) {
            *register = kind.type_bits();
        }
        let (mut bars, _) = bar::decode(registers, self.resources.map(|(size, _)| size));
        bars.extend(bar::rom(self.rom).ok().flatten());
        bars
    }
}

/// Finds the function that a user means by `name`: an address (`0000:01:00.0`, `01:00.0`), a path to its directory
/// in sysfs, or `fd:3`, the open device file (`/dev/vfio/devices/vfio0`) that this process was started with as descriptor 3.
pub fn find(name: &str) -> Result<SysfsFunction, OpenError> {
    if let Some(fd) = name.strip_prefix(FILE) {
        return find_file(fd.parse().map_err(|_| OpenError::UnknownDevice { name: name.to_owned() })?);
    }
    find_in(Path::new(DEVICES), name)
}

fn find_file(fd: RawFd) -> Result<SysfsFunction, OpenError> {
    find_file_in(Path::new(CHARACTER_DEVICES), Path::new(DEVICES), fd)
}

fn find_file_in(links: &Path, devices: &Path, fd: RawFd) -> Result<SysfsFunction, OpenError> {
    let error = |source| OpenError::NoDevice { fd, source };
    let other = || error(io::ErrorKind::InvalidInput.into());
    let number = device_number(fd).map_err(error)?.ok_or_else(other)?;
    let link = links.join(format!("{}:{}", libc::major(number), libc::minor(number)));
    // .../0000:01:00.0/vfio-dev/vfio0
    let path = fs::canonicalize(link).map_err(error)?;
    let class = path.parent().filter(|class| class.ends_with(CDEV_CLASS)).ok_or_else(other)?;
    let function = class.parent().and_then(|f| f.file_name()?.to_str()?.parse().ok()).ok_or_else(other)?;
    let function = read(devices, function).ok_or_else(other)?;
    Ok(SysfsFunction { file: Some(fd), ..function })
}

/// Device number of the character device that is open as `fd`; nothing when it is another kind of file.
fn device_number(fd: RawFd) -> io::Result<Option<libc::dev_t>> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel writes a stat, or fails.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above wrote it.
    let stat = unsafe { stat.assume_init() };
    Ok((stat.st_mode & libc::S_IFMT == libc::S_IFCHR).then_some(stat.st_rdev))
}

/// Takes over a descriptor that this process was started with. Everything that it opens itself has the close-on-exec
/// flag, and so has what was taken over once: neither is handed out a second time.
pub fn take_over(fd: RawFd) -> io::Result<File> {
    // SAFETY: the calls take and return numbers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if fd <= libc::STDERR_FILENO || flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nobody in this process has it: whoever opened or took it would have set the flag.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// As [`find`], among those in `devices`, a directory such as [`DEVICES`].
pub fn find_in(devices: &Path, name: &str) -> Result<SysfsFunction, OpenError> {
    let unknown = || OpenError::UnknownDevice { name: name.to_owned() };
    let address: HostAddress = if name.contains('/') {
        let path = fs::canonicalize(name).map_err(|_| unknown())?;
        path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()).ok_or_else(unknown)?
    } else {
        name.parse().map_err(|_| unknown())?
    };
    read(devices, address).ok_or_else(unknown)
}

fn read(devices: &Path, address: HostAddress) -> Option<SysfsFunction> {
    let directory = devices.join(address.to_string());
    if !directory.is_dir() {
        return None;
    }
    let id = |file| {
        let text = fs::read_to_string(directory.join(file)).ok()?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let resource = fs::read_to_string(directory.join("resource")).unwrap_or_default();
    Some(SysfsFunction {
        address,
        driver: link_name(&directory.join("driver")),
        group: groups::number(&directory),
        file: None,
        cdev: fs::read_dir(directory.join(CDEV_CLASS))
            .ok()
            .and_then(|mut entries| entries.next()?.ok()?.file_name().into_string().ok()),
        resources: resources(&resource),
        rom: rom(&resource),
        class: id("class").unwrap_or(0),
        ids: id("vendor").unwrap_or(0xffff) | id("device").unwrap_or(0xffff) << 16,
    })
}

/// The name of what a link leads to.
pub fn link_name(path: &Path) -> Option<String> {
    let target: PathBuf = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// The driver that holds a function.
pub fn driver(address: HostAddress) -> Option<String> {
    link_name(&Path::new(DEVICES).join(address.to_string()).join("driver"))
}

/// A driver that gives functions to VFIO: vfio-pci, or one for a kind of device (`vfio_pci_core` users are all called so).
pub fn is_vfio(driver: &str) -> bool {
    driver.starts_with("vfio") || driver.ends_with("-vfio-pci") || driver.ends_with("_vfio_pci")
}

/// The first way in which the kernel resets a function: the first word of its `reset_method`, which Linux 5.15 and later
/// have (Documentation/ABI/testing/sysfs-bus-pci).
pub fn reset_method(address: HostAddress) -> Option<String> {
    reset_method_in(Path::new(DEVICES), address)
}

fn reset_method_in(devices: &Path, address: HostAddress) -> Option<String> {
    let text = fs::read_to_string(devices.join(address.to_string()).join("reset_method")).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

/// `linux/ioport.h`
const IORESOURCE_IO: u64 = 0x100;
const IORESOURCE_PREFETCH: u64 = 0x2000;
const IORESOURCE_MEM_64: u64 = 0x10_0000;

/// Size and flags of each line of `resource`, which is start, end and flags in hexadecimal. The first six are the BARs, the
/// seventh is the expansion ROM. Size 0 where there is nothing.
fn lines(text: &str) -> impl Iterator<Item = (u64, u64)> {
    text.lines().map(|line| {
        let mut words = line.split_whitespace().map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16));
        match (words.next(), words.next(), words.next()) {
            (Some(Ok(start)), Some(Ok(end)), Some(Ok(flags))) if flags != 0 && end >= start => {
                ((end - start).saturating_add(1), flags)
            }
            _ => (0, 0),
        }
    })
}

fn resources(text: &str) -> [(u64, BarKind); BARS] {
    let mut bars = [(0, BarKind::Memory32 { prefetchable: false }); BARS];
    for (bar, (size, flags)) in bars.iter_mut().zip(lines(text)).filter(|(_, (size, _))| *size > 0) {
        let prefetchable = flags & IORESOURCE_PREFETCH != 0;
        let kind = match (flags & IORESOURCE_IO != 0, flags & IORESOURCE_MEM_64 != 0) {
            (true, _) => BarKind::Io,
            (_, true) => BarKind::Memory64 { prefetchable },
            _ => BarKind::Memory32 { prefetchable },
        };
        *bar = (size, kind);
    }
    bars
}

fn rom(text: &str) -> u64 {
    lines(text).nth(BARS).map_or(0, |(size, _)| size)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn resource_files_give_sizes_and_kinds() {
        let text = "0x00000000febd0000 0x00000000febd3fff 0x0000000000140204\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x000000000000c040 0x000000000000c05f 0x0000000000040101\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x00000000fe000000 0x00000000fe003fff 0x0000000000042208\n\
                    garbage\n\
                    0x1 0x2 0x3\n";
        let bars = resources(text);
        assert_eq!(bars[0], (0x4000, BarKind::Memory64 { prefetchable: false }));
        assert_eq!(bars[1].0, 0);
        assert_eq!(bars[2], (0x20, BarKind::Io));
        assert_eq!(bars[4], (0x4000, BarKind::Memory32 { prefetchable: true }));
        assert_eq!(bars[5].0, 0);
        assert_eq!(rom(text), 2);
        assert_eq!(rom("0x0 0x0 0x0\n"), 0);
    }

    #[test]
    fn the_first_reset_method_is_what_counts() {
        let devices = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let address: HostAddress = "0000:03:00.0".parse().unwrap();
        let directory = devices.as_path().join(address.to_string());
        fs::create_dir(&directory).unwrap();
        let method = || reset_method_in(devices.as_path(), address);
        assert_eq!(method(), None, "an older kernel");
        for (text, expected) in [("flr bus\n", Some("flr")), ("pm\n", Some("pm")), ("\n", None)] {
            fs::write(directory.join("reset_method"), text).unwrap();
            assert_eq!(method().as_deref(), expected);
        }
    }

    #[test]
    fn drivers_that_give_to_vfio_are_known_by_their_names() {
        for driver in ["vfio-pci", "vfio-noiommu", "mlx5_vfio_pci", "hisi-acc-vfio-pci"] {
            assert!(is_vfio(driver), "{driver}");
        }
        for driver in ["nvme", "pci-stub", "pcieport", ""] {
            assert!(!is_vfio(driver), "{driver}");
        }
    }

    #[test]
    fn the_function_of_an_open_device_file_is_found() {
        let tree = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let (links, devices) = (tree.as_path().join("char"), tree.as_path().join("devices"));
        let class = devices.join("0000:03:00.1/vfio-dev/vfio7");
        fs::create_dir_all(&class).unwrap();
        fs::create_dir(&links).unwrap();
        let null = File::open("/dev/null").unwrap();
        let found = |fd| find_file_in(&links, &devices, fd);
        assert!(
            matches!(found(null.as_raw_fd()), Err(OpenError::NoDevice { .. })),
            "no device of a function"
        );
        std::os::unix::fs::symlink(&class, links.join("1:3")).unwrap();
        let function = found(null.as_raw_fd()).unwrap();
        assert_eq!(function.address.to_string(), "0000:03:00.1");
        assert_eq!((function.cdev.as_deref(), function.file), (Some("vfio7"), Some(null.as_raw_fd())));

        let regular = vmm_sys_util::tempfile::TempFile::new().unwrap();
        for fd in [regular.as_file().as_raw_fd(), -1, 1 << 20] {
            assert!(matches!(found(fd), Err(OpenError::NoDevice { .. })), "{fd}");
        }
    }

    #[test]
    fn descriptors_are_taken_over_once_and_not_from_this_process() {
        let own = File::open("/dev/null").unwrap();
        assert!(take_over(own.as_raw_fd()).is_err(), "opened here");
        assert!(take_over(2).is_err());
        assert!(take_over(-1).is_err());
        // SAFETY: takes and returns numbers; the copy is nobody else's.
        let handed_over = unsafe { libc::dup(own.as_raw_fd()) };
        let file = take_over(handed_over).unwrap();
        assert_eq!(file.as_raw_fd(), handed_over);
        assert!(take_over(handed_over).is_err(), "taken over before");
    }

    #[test]
    fn graphics_are_told_by_class_and_place() {
        let function = |address: &str, ids, class| SysfsFunction {
            address: address.parse().unwrap(),
            driver: None,
            group: None,
            file: None,
            cdev: None,
            resources: resources(""),
            rom: 0,
            ids,
            class,
        };
        for (address, ids, class, integrated, vga) in [
            ("0000:00:02.0", 0x4680_8086, 0x03_0000, true, true),
            ("0000:00:02.0", 0x4680_8086, 0x03_8000, true, false),
            ("0000:00:02.1", 0x4680_8086, 0x03_0000, false, true),
            ("0000:03:00.0", 0x56a0_8086, 0x03_0000, false, true),
            ("0000:00:02.0", 0x1111_1234, 0x03_0000, false, true),
            ("0000:00:02.0", 0x100e_8086, 0x02_0000, false, false),
        ] {
            let function = function(address, ids, class);
            assert_eq!(
                (function.is_integrated_graphics(), function.is_vga()),
                (integrated, vga),
                "{function:?}"
            );
        }
    }

    #[test]
    fn names_that_mean_no_function() {
        for name in [
            "",
            "0000:ff:1f.7",
            "nonsense",
            "fd:",
            "fd:x",
            "/sys",
            "/nowhere/0000:00:00.0",
            "../0000:00:01.0",
        ] {
            assert!(matches!(find(name), Err(OpenError::UnknownDevice { .. })), "{name}");
        }
    }
}
