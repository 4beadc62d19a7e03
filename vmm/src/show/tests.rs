//! The whole of what is shown, of kept functions. `SLOTPASS_BLESS=1 cargo test -p vmm show` writes the texts anew.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

const READ_ONLY: MsixPage = MsixPage::ReadOnly;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/show/fixtures").join(name)
}

/// A function's directory as sysfs has it, in its place below its bridges, and what stands around it.
struct Host {
    root: TempDir,
    name: String,
}

impl Host {
    /// From a kept dump.
    fn kept(name: &str) -> Host {
        let text = fs::read_to_string(file(&format!("{name}.dump"))).unwrap();
        let words = |key: &str| -> Vec<&str> {
            text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).collect()
        };
        let mut config = vec![0; words("bytes")[0].parse().unwrap()];
        for (offset, bytes) in text.lines().filter_map(|line| line.split_once(": ")) {
            let Ok(offset) = usize::from_str_radix(offset, 16) else { continue };
            for (byte, text) in config[offset..].iter_mut().zip(bytes.split_whitespace()) {
                *byte = u8::from_str_radix(text, 16).unwrap();
            }
        }
        let host = Host::new(words("name")[0], &config);
        host.write("resource", words("resource").join("\n").as_bytes());
        host.write("reset_method", words("reset_method")[0].as_bytes());
        host.bind(words("driver")[0]);
        host.group(words("group")[0]);
        host
    }

    fn new(name: &str, config: &[u8]) -> Host {
        let host = Host { root: TempDir::new().unwrap(), name: name.to_owned() };
        fs::create_dir_all(host.directory()).unwrap();
        host.write("config", config);
        host
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("pci0000:00").join(&self.name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.directory().join(name), bytes).unwrap();
    }

    fn bind(&self, driver: &str) {
        symlink(format!("../../drivers/{driver}"), self.directory().join("driver")).unwrap();
    }

    fn group(&self, number: &str) {
        let members = self.root.path().join("iommu_groups").join(number).join("devices");
        fs::create_dir_all(&members).unwrap();
        symlink(self.directory(), members.join(&self.name)).unwrap();
        symlink(members.parent().unwrap(), self.directory().join("iommu_group")).unwrap();
    }

    fn shown(&self) -> Shown {
        self.shown_in(Stands::RootBus)
    }

    fn shown_in(&self, stands: Stands) -> Shown {
        Shown::new(Subject::host(&self.name, &self.directory()).unwrap(), stands, READ_ONLY).unwrap()
    }
}

#[track_caller]
fn expect_text(name: &str, text: &str) {
    let path = file(name);
    if std::env::var_os("SLOTPASS_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if let Some((at, (got, want))) = text.lines().zip(kept.lines()).enumerate().find(|(_, (a, b))| a != b) {
        panic!("{name}, line {}:\n   is {got:?}\n   was {want:?}", at + 1);
    }
    assert_eq!(text, kept, "{name}");
}

#[test]
fn kept_functions_are_shown_as_before() {
    for name in ["nvme", "e1000e"] {
        let shown = Host::kept(name).shown();
        expect_text(&format!("{name}.txt"), &shown.text(false).to_string());
        expect_text(&format!("{name}.diff.txt"), &shown.text(true).to_string());
    }
    let shown = Shown::of(&DeviceName::from("sim:demo"), Stands::RootBus, READ_ONLY).unwrap();
    expect_text("demo.txt", &shown.text(false).to_string());
    expect_text("demo.diff.txt", &shown.text(true).to_string());
}

#[test]
fn pages_of_msix_structures_say_whether_reads_exit_and_why() {
    let pieces = |shown: &Shown| -> Vec<String> {
        let text = shown.text(false).to_string();
        text.lines()
            .filter(|line| line.contains("MSI-X") && line.contains("..") && line.contains("  0x"))
            .map(|line| line.trim().to_owned())
            .collect()
    };
    let demo = |how| Shown::of(&DeviceName::from("sim:demo"), Stands::RootBus, how).unwrap();
    let lines = pieces(&demo(MsixPage::ReadOnly));
    assert!(lines[0].ends_with("reads take no exit, writes are trapped: holds the MSI-X table"), "{lines:?}");
    assert!(
        lines[1].ends_with("reads take no exit, writes are trapped: holds MSI-X pending bits"),
        "{lines:?}"
    );
    let trapped = demo(MsixPage::Trap);
    let lines = pieces(&trapped);
    assert!(
        lines
            .iter()
            .take(2)
            .all(|line| line.ends_with("trapped: holds MSI-X structures, and msix-page=trap asks for it")),
        "{lines:?}"
    );
    let json = serde_json::to_value(&trapped).unwrap();
    assert_eq!(json["bars"][3]["pieces"][0]["reason"], "asked");
    assert_eq!(json["bars"][3]["pieces"][0]["read_only"], false);
}

#[test]
fn kept_functions_behind_a_port() {
    for name in ["nvme", "e1000e"] {
        let shown = Host::kept(name).shown_in(Stands::BehindPort);
        expect_text(&format!("{name}.port.txt"), &shown.text(false).to_string());
        expect_text(&format!("{name}.port.diff.txt"), &shown.text(true).to_string());
    }
    let shown = Shown::of(&DeviceName::from("sim:demo"), Stands::BehindPort, READ_ONLY).unwrap();
    expect_text("demo.port.diff.txt", &shown.text(true).to_string());
}

/// A function's own link, trained to what both ends can do, without power management, which would be the host's. One that
/// is integrated in the host has none of its own and gets one like the port's.
#[test]
fn a_link_is_shown_behind_a_port_only() {
    let link = |shown: &Shown| {
        let named = |name| shown.registers.iter().find(|register| register.name == Some(name)).unwrap();
        ["Link Capabilities", "Link Status"].map(|name| named(name).guest_meaning.clone().unwrap())
    };
    let demo = |stands| Shown::of(&DeviceName::from("sim:demo"), stands, READ_ONLY).unwrap();
    let nvme = Host::kept("nvme");
    for (shown, stands, wanted) in [
        (demo(Stands::RootBus), "root_bus", ["no link", "no link"]),
        (demo(Stands::BehindPort), "behind_port", ["2.5 GT/s, x1, no ASPM", "2.5 GT/s, x1"]),
        (nvme.shown(), "root_bus", ["no link", "no link"]),
        (nvme.shown_in(Stands::BehindPort), "behind_port", ["16 GT/s, x16, no ASPM", "16 GT/s, x16"]),
    ] {
        assert_eq!(link(&shown), wanted, "{} {stands}", shown.device);
        assert_eq!(serde_json::to_value(&shown).unwrap()["stands"], stands);
    }
}

#[test]
fn what_no_guest_gets_of_graphics_is_said_with_the_reason() {
    let graphics = |name: &str, ids: [u8; 4], class: [u8; 3]| {
        let mut config = vec![0; 256];
        config[..4].copy_from_slice(&ids);
        config[9..12].copy_from_slice(&class);
        Host::new(name, &config)
    };
    let intel = [0x86, 0x80, 0x80, 0x46];
    let (vga, other, network) = ([0, 0, 3], [0, 0x80, 3], [0, 0, 2]);
    for (name, ids, class, refused) in [
        ("0000:00:02.0", intel, vga, &["function", "vga_ranges"][..]),
        ("0000:00:02.0", intel, other, &["function"]),
        ("0000:00:02.1", intel, vga, &["vga_ranges"]),
        ("0000:00:02.0", [0x34, 0x12, 0x11, 0x11], vga, &["vga_ranges"]),
        ("0000:00:02.0", intel, network, &[]),
    ] {
        let shown = graphics(name, ids, class).shown();
        let json = serde_json::to_value(&shown).unwrap();
        let told: Vec<&str> = json["refused"]
            .as_array()
            .unwrap()
            .iter()
            .map(|refused| refused["what"].as_str().unwrap())
            .collect();
        assert_eq!(told, refused, "{name} {ids:x?} {class:x?}");
        for diff in [true, false] {
            let text = shown.text(diff).to_string();
            assert_eq!(text.contains("refused: it is Intel's"), refused.contains(&"function"), "{text}");
            let ranges = "refused: the legacy VGA ranges (0xa0000 to 0xbffff";
            assert_eq!(text.contains(ranges), refused.contains(&"vga_ranges"), "{text}");
        }
    }
}

/// An endpoint with a capability of each kind that a guest must not see.
fn with_hidden_capabilities() -> Vec<u8> {
    let mut config = vec![0; 4096];
    let mut put = |offset: usize, bytes: &[u8]| config[offset..][..bytes.len()].copy_from_slice(bytes);
    put(0x00, &[0x86, 0x80, 0x0d, 0x57, 0, 0, 0x10, 0]);
    put(0x34, &[0x40]);
    // Advanced Features, and the end of the list.
    put(0x40, &[0x13, 0x50, 0x06, 0x03]);
    put(0x50, &[0x01, 0x00, 0x03, 0x00, 0x08]);
    // SR-IOV with 64 functions, address translation, a serial number.
    put(0x100, &[0x10, 0x00, 0x01, 0x15]);
    put(0x10c, &[64, 0, 64, 0]);
    put(0x150, &[0x0f, 0x00, 0x01, 0x16, 0x20]);
    put(0x160, &[0x03, 0x00, 0x01, 0x00, 1, 2, 3, 4, 5, 6, 7, 8]);
    config
}

#[test]
fn hidden_capabilities_are_named_with_the_reason() {
    let host = Host::new("0000:03:00.0", &with_hidden_capabilities());
    let shown = host.shown();
    let found = |name: &str| shown.capabilities.iter().find(|c| c.name == name).unwrap();
    for (name, reason) in [
        ("SR-IOV", "a guest cannot make further functions"),
        ("Address Translation Services", "address translation is the host IOMMU's"),
    ] {
        assert_eq!((found(name).guest, found(name).hidden_because), (None, Some(reason)), "{name}");
    }
    assert_eq!(found("Device Serial Number").guest, Some(0x160));
    let text = shown.text(true).to_string();
    let row = text.lines().find(|line| line.trim_start().starts_with("SR-IOV")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[..4], ["SR-IOV", "0x100", "-", "hidden:"]);
    // The registers of what is gone as a whole are in the JSON only.
    let total = shown.registers.iter().find(|r| r.name == Some("TotalVFs")).unwrap();
    assert_eq!((total.physical.as_str(), total.guest.as_str()), ("0x0040", "0x0000"));
    assert_eq!((total.differs, total.reason.as_slice()), (true, &[Access::Hidden][..]));
    assert!(!text.contains("TotalVFs"), "{text}");
}

#[test]
fn without_root_only_the_header_is_shown_and_that_is_said() {
    let kept = Host::kept("nvme");
    let whole = fs::read(kept.directory().join("config")).unwrap();
    kept.write("config", &whole[..64]);
    let shown = kept.shown();
    assert!(shown.capabilities.is_empty(), "{:?}", shown.capabilities);
    assert_eq!(shown.config_bytes, 64);
    assert!(shown.registers.iter().all(|register| register.offset < 64));
    assert!(shown.notes[0].contains("without root"), "{:?}", shown.notes);
    assert_eq!(shown.identity.device, 0x0010);
    let text = shown.text(false).to_string();
    assert!(text.contains("  MSI-X  not known without root\n"), "{text}");
}

#[test]
fn small_bars_are_mapped_when_their_page_is_their_own() {
    let mut config = vec![0; 256];
    config[..4].copy_from_slice(&[0x34, 0x12, 0xe8, 0x11]);
    let host = Host::new("0000:00:06.0", &config);
    let line = |start: u64, size: u64| format!("{start:#x} {:#x} 0x40200\n", start + size - 1);
    for (resource, mapped) in [
        (line(0xfe00_0000, 0x100), [Some(true), None]),
        (line(0xfe00_0800, 0x100), [Some(false), None]),
        (line(0xfe00_0000, 0x100) + &line(0xfe00_0100, 0x100), [Some(false), Some(false)]),
        (line(0xfe00_0000, 0x100) + &line(0xfe00_1000, 0x2000), [Some(true), Some(true)]),
    ] {
        host.write("resource", resource.as_bytes());
        let bars = host.shown().bars;
        let of = |bar| bars.iter().find(|b| b.bar == bar).map(|b| b.pieces.iter().all(|p| p.mapped));
        assert_eq!([of(0), of(1)], mapped, "{resource}");
    }
}

#[test]
fn a_bus_reset_names_those_that_it_takes_along() {
    let mut config = vec![0; 256];
    config[..4].copy_from_slice(&[0x34, 0x12, 0xe8, 0x11]);
    let host = Host::new("0000:00:1c.0/0000:03:00.0", &config);
    fs::create_dir_all(host.directory().with_file_name("0000:03:01.0")).unwrap();
    fs::create_dir_all(host.directory().with_file_name("power")).unwrap();
    let method = host.shown().reset.method;
    assert_eq!(method.as_deref(), Some("bus, together with 0000:03:01.0"));
    // Linux found the other later, and the bus did not share then.
    for (words, expected) in [
        ("bus", "bus, together with 0000:03:01.0"),
        ("cxl_bus", "bus, together with 0000:03:01.0"),
        ("pm bus", "PM (D3hot to D0)"),
    ] {
        host.write("reset_method", words.as_bytes());
        assert_eq!(host.shown().reset.method.as_deref(), Some(expected), "{words}");
    }
    // On a root bus there is none.
    let alone = Host::new("0000:00:06.0", &config);
    fs::create_dir_all(alone.directory().with_file_name("0000:00:07.0")).unwrap();
    assert_eq!(alone.shown().reset.method, None);
}

#[test]
fn every_word_of_the_kernels_for_a_reset() {
    let mut config = vec![0; 256];
    config[..4].copy_from_slice(&[0x34, 0x12, 0xe8, 0x11]);
    for (words, method) in [
        ("flr pm bus", Some("FLR")),
        ("af_flr", Some("AF-FLR")),
        ("pm", Some("PM (D3hot to D0)")),
        ("bus", Some("bus")),
        ("device_specific", Some("device-specific")),
        ("acpi flr", Some("device-specific")),
        ("", None),
    ] {
        let host = Host::new("0000:00:06.0", &config);
        host.write("reset_method", words.as_bytes());
        let reset = host.shown().reset;
        assert_eq!(reset.method.as_deref(), method, "{words:?}");
        assert_eq!(reset.kernel, words.split_whitespace().collect::<Vec<_>>());
    }
}

#[test]
fn what_cannot_be_a_guests_is_an_error_that_names_it() {
    let bridge = {
        let mut config = vec![0; 256];
        config[0x0e] = 0x01;
        config
    };
    for (config, part) in
        [(vec![0xff; 256], "does not answer"), (bridge, "bridge"), (Vec::new(), "0000:00:06.0")]
    {
        let host = Host::new("0000:00:06.0", &config);
        match Subject::host(&host.name, &host.directory())
            .map(|it| Shown::new(it, Stands::RootBus, READ_ONLY))
        {
            Ok(Err(error)) => {
                let error = error.to_string();
                assert!(error.starts_with("0000:00:06.0: ") && error.contains(part), "{error}");
            }
            // An empty file reads as zeros: a function, though a strange one.
            Ok(Ok(shown)) => assert!(config.is_empty(), "{:?}", shown.identity),
            Err(error) => panic!("{error}"),
        }
    }
    let gone = Host::new("0000:00:06.0", &[]);
    fs::remove_file(gone.directory().join("config")).unwrap();
    let error = Subject::host(&gone.name, &gone.directory()).unwrap_err().to_string();
    assert!(error.contains("0000:00:06.0/config") && error.contains("No such file"), "{error}");
}

#[test]
fn any_bytes_can_be_shown() {
    let mut state = 1u32;
    for round in 0..40 {
        let config: Vec<u8> = (0..4096)
            .map(|at| {
                // Numerical Recipes' generator.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at == 0x0e { 0 } else { (state >> 24) as u8 }
            })
            .collect();
        let host = Host::new("0000:00:06.0", &config);
        let stands = if round < 20 { Stands::RootBus } else { Stands::BehindPort };
        let subject = Subject::host(&host.name, &host.directory()).unwrap();
        let Ok(shown) = Shown::new(subject, stands, READ_ONLY) else { continue };
        let (text, diff) = (shown.text(false).to_string(), shown.text(true).to_string());
        assert!(diff.lines().count() <= text.lines().count() + 10, "{diff}");
        serde_json::to_string(&shown).unwrap();
        // Each byte of the header and of what has a name is told of at most once.
        let mut last = 0;
        for register in &shown.registers {
            assert!(usize::from(register.offset) >= last, "{register:?}");
            last = usize::from(register.offset + register.size);
        }
    }
}
