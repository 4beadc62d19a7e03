use std::os::unix::fs::symlink;

use passthru::pci::Slot;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A sysfs with nothing but PCI functions.
struct Tree(TempDir);

/// What is in a function's files.
#[derive(Clone, Copy)]
struct Ids {
    class: u32,
    own: (u16, u16),
    subsystem: (u16, u16),
    is_bridge: bool,
}

const NIC: Ids =
    Ids { class: 0x02_0000, own: (0x8086, 0x1528), subsystem: (0x15d9, 0x1528), is_bridge: false };
const PORT: Ids =
    Ids { class: 0x06_0400, own: (0x8086, 0x0151), subsystem: (0x1028, 0x04aa), is_bridge: true };
const GPU: Ids =
    Ids { class: 0x03_0000, own: (0x10de, 0x0a65), subsystem: (0x1462, 0x2291), is_bridge: false };

impl Tree {
    fn new() -> Tree {
        let tree = Tree(TempDir::new().unwrap());
        fs::create_dir_all(tree.root().join(FUNCTIONS)).unwrap();
        tree
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// A function in directory `path` below `devices`, such as `pci0000:00/0000:00:01.0`.
    fn add(&self, path: &str, ids: Ids) -> &Tree {
        let directory = self.root().join("devices").join(path);
        fs::create_dir_all(&directory).unwrap();
        if ids.is_bridge {
            fs::write(directory.join("secondary_bus_number"), "1\n").unwrap();
        }
        fs::write(directory.join("class"), format!("0x{:06x}\n", ids.class)).unwrap();
        for (file, id) in [
            ("vendor", ids.own.0),
            ("device", ids.own.1),
            ("subsystem_vendor", ids.subsystem.0),
            ("subsystem_device", ids.subsystem.1),
        ] {
            fs::write(directory.join(file), format!("0x{id:04x}\n")).unwrap();
        }
        let name = path.rsplit('/').next().unwrap();
        symlink(format!("../../../devices/{path}"), self.root().join(FUNCTIONS).join(name)).unwrap();
        self
    }

    fn file(&self, path: &str, text: &str) -> &Tree {
        fs::write(self.root().join("devices").join(path), text).unwrap();
        self
    }

    fn virtual_of(&self, path: &str, physical: &str) -> &Tree {
        symlink(format!("../{physical}"), self.root().join("devices").join(path).join("physfn")).unwrap();
        self
    }

    fn path(&self, address: &str) -> String {
        of_in(self.root(), address.parse().unwrap()).unwrap()
    }

    fn find(&self, path: &str) -> Result<String, String> {
        find_in(self.root(), path).map(|address| address.to_string()).map_err(|error| error.to_string())
    }

    /// The path of a function, which must lead to it again.
    fn there_and_back(&self, address: &str) -> String {
        let path = self.path(address);
        assert_eq!(self.find(&path).as_deref(), Ok(address));
        assert_eq!(self.find(&format!("/devices{path}")).as_deref(), Ok(address));
        assert_eq!(self.find(&format!("/devices{path}:ppt")).as_deref(), Ok(address));
        assert_eq!(canonical(&path).unwrap(), path);
        path
    }
}

/// Two functions of a graphics card behind a root port, and a network card on another root bus.
fn host() -> Tree {
    let tree = Tree::new();
    tree.add("pci0000:00/0000:00:01.0", PORT)
        .add("pci0000:00/0000:00:01.0/0000:01:00.0", GPU)
        .add("pci0000:00/0000:00:01.0/0000:01:00.1", Ids { class: 0x04_0300, ..GPU })
        .add("pci0000:00/0000:00:1f.0", Ids { class: 0x06_0100, ..NIC })
        .add("pci0000:79/0000:79:03.2", PORT)
        .add("pci0000:79/0000:79:03.2/0000:7a:00.0", NIC)
        .add("pci0000:79/0000:79:03.2/0000:7a:00.1", NIC);
    tree
}

#[test]
fn nodes_are_named_as_illumos_names_them() {
    let ids = |class, subsystem, is_bridge| Ids { class, own: (0x10de, 0x0a65), subsystem, is_bridge };
    let subsystem = (0x1462, 0x0291);
    for (ids, name) in [
        (ids(0x03_0000, subsystem, false), "display"),
        (ids(0x03_0001, subsystem, false), "display"),
        (ids(0x00_0100, (0, 0), false), "display"),
        // A GPU without a display is no VGA controller.
        (ids(0x03_0200, subsystem, false), "pci1462,291"),
        (ids(0x03_8000, subsystem, false), "pci1462,291"),
        (ids(0x06_0100, subsystem, false), "isa"),
        (ids(0x06_0180, subsystem, false), "isa"),
        (ids(0x04_0300, subsystem, false), "pci1462,291"),
        (ids(0x04_0300, (0, 0x291), false), "pci10de,a65"),
        (ids(0x04_0300, (0x1462, 0), false), "pci1462,0"),
        (ids(0x06_0400, subsystem, true), "pci10de,a65"),
        (ids(0x06_0401, subsystem, true), "pci10de,a65"),
        (ids(0x06_0700, subsystem, true), "pci1462,291"),
        (Ids { own: (0x0e11, 0x0046), ..ids(0x01_0000, (0, 0), false) }, "pcie11,46"),
    ] {
        let tree = Tree::new();
        tree.add("pci0000:00/0000:00:0a.0", ids);
        assert_eq!(tree.there_and_back("0000:00:0a.0"), format!("/pci@0,0/{name}@a"));
    }
}

#[test]
fn paths_lead_from_a_root_through_bridges() {
    let tree = host();
    tree.add("platform/host/pci0000:b2/0000:b2:00.0", NIC)
        // A function that is itself the root of another domain (Intel VMD).
        .add("pci0000:00/0000:00:0e.0", Ids { subsystem: (0, 0), ..NIC })
        .add("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", PORT)
        .add("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0", NIC)
        // The same places as in domain 0.
        .add("pci0001:79/0001:79:03.2", PORT);
    for (address, path) in [
        ("0000:00:01.0", "/pci@0,0/pci8086,151@1"),
        ("0000:01:00.0", "/pci@0,0/pci8086,151@1/display@0"),
        ("0000:01:00.1", "/pci@0,0/pci8086,151@1/pci1462,2291@0,1"),
        ("0000:00:1f.0", "/pci@0,0/isa@1f"),
        ("0000:79:03.2", "/pci@79,0/pci8086,151@3,2"),
        ("0000:7a:00.1", "/pci@79,0/pci8086,151@3,2/pci15d9,1528@0,1"),
        ("0000:b2:00.0", "/pci@b2,0/pci15d9,1528@0"),
        ("0000:00:0e.0", "/pci@0,0/pci8086,1528@e"),
        ("10000:e1:00.0", "/pci@e0,10000/pci8086,151@6/pci15d9,1528@0"),
        ("0001:79:03.2", "/pci@79,1/pci8086,151@3,2"),
    ] {
        assert_eq!(tree.there_and_back(address), path);
    }
}

#[test]
fn functions_without_a_device_number() {
    let tree = host();
    let port = "pci0000:79/0000:79:03.2";
    for (name, ari) in [("0000:7a:10.1", "1"), ("0000:7a:00.2", "1"), ("0000:7a:10.2", "0")] {
        let path = format!("{port}/{name}");
        tree.add(&path, NIC).file(&format!("{path}/ari_enabled"), ari);
    }
    // A virtual function of the first bus, and one that is on the next.
    tree.virtual_of(&format!("{port}/0000:7a:10.1"), "0000:7a:00.0");
    let next = format!("{port}/0000:7b:00.0");
    tree.add(&next, NIC).virtual_of(&next, "0000:7a:00.0");
    for (address, unit) in [
        ("0000:7a:00.0", "0"),
        ("0000:7a:00.2", "0,2"),
        ("0000:7a:10.1", "0,81"),
        ("0000:7a:10.2", "10,2"),
        ("0000:7b:00.0", "0,100"),
    ] {
        assert!(tree.there_and_back(address).ends_with(&format!("/pci15d9,1528@{unit}")), "{address}");
    }
}

#[test]
fn numbers_may_be_padded_and_zeros_left_out() {
    let tree = host();
    for path in ["/pci@0/pci8086,151@01/display@0,0", "/devices/pci@00,0/pci8086,151@1,0/display@00"] {
        assert_eq!(tree.find(path).as_deref(), Ok("0000:01:00.0"), "{path}");
    }
    assert_eq!(tree.find("/pci@0,0/isa@1F").as_deref(), Ok("0000:00:1f.0"));
}

#[test]
fn paths_have_one_spelling_on_illumos() {
    for (path, expected) in [
        ("/pci@0,0/isa@1f", "/pci@0,0/isa@1f"),
        ("/devices/pci@0,0/isa@1f:ppt", "/pci@0,0/isa@1f"),
        ("/pci@0/isa@1F", "/pci@0,0/isa@1f"),
        ("/pci@0,0/isa@1f,0", "/pci@0,0/isa@1f"),
        ("/pci@00,0/pci8086,151@01/display@00,01", "/pci@0,0/pci8086,151@1/display@0,1"),
        ("/pci@7F,01/isa@a", "/pci@7f,1/isa@a"),
    ] {
        assert_eq!(canonical(path).unwrap(), expected, "{path}");
    }
    assert!(canonical("/pci@0,0/isa@1f/").is_err());
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let tree = host();
    for (path, told) in [
        ("/pci@1,0/isa@1f", "there is no pci@1,0 in this host; there is pci@0,0, pci@79,0"),
        ("/pci@0,1/isa@1f", "there is no pci@0,1 in this host; there is pci@0,0, pci@79,0"),
        ("/pci@0,0/isa@1e", "there is no isa@1e at /pci@0,0; there is pci8086,151@1, isa@1f"),
        (
            "/pci@0,0/pci8086,151@1/display@1",
            "there is no display@1 at /pci@0,0/pci8086,151@1; there is display@0, pci1462,2291@0,1",
        ),
        ("/pci@0,0/isa@1f/display@0", "there is no display@0 at /pci@0,0/isa@1f; there is nothing"),
        (
            "/pci@0,0/pci8086,152@1/display@0",
            "there is no pci8086,152@1 at /pci@0,0; at that address is pci8086,151@1",
        ),
        (
            "/pci@0,0/pci8086,151@1/pci10de,a65@0",
            "there is no pci10de,a65@0 at /pci@0,0/pci8086,151@1; at that address is display@0",
        ),
        ("/pci@0,0/pciex8086,151@1", "at that address is pci8086,151@1"),
        ("/pci@0,0", "that is a bus, not a function; on it is pci8086,151@1, isa@1f"),
        ("/pci@0,0/", "'' is not NAME@DEVICE[,FUNCTION]"),
        ("/pci@0,0//isa@1f", "'' is not NAME@DEVICE[,FUNCTION]"),
        ("/pci@0,0/isa", "'isa' is not NAME@DEVICE[,FUNCTION]"),
        ("/pci@0,0/isa@", "'isa@' is not NAME@DEVICE[,FUNCTION]"),
        ("/pci@0,0/isa@1f,", "'isa@1f,' is not NAME@DEVICE[,FUNCTION]"),
        ("/pci@0,0/isa@+1f", "'isa@+1f' is not NAME@DEVICE[,FUNCTION]"),
        ("/pci@0,0/isa@1f:pci", "'isa@1f:pci' is not NAME@DEVICE[,FUNCTION]"),
        ("/pci@0,0/pci8086,151@1:ppt/display@0", "'pci8086,151@1:ppt' is not NAME@DEVICE[,FUNCTION]"),
        ("/pci@0,0/isa@100000000", "'isa@100000000' is not NAME@DEVICE[,FUNCTION]"),
    ] {
        for path in [path.to_owned(), format!("/devices{path}")] {
            let error = tree.find(&path).unwrap_err();
            assert!(error.starts_with(&format!("{path}: ")) && error.contains(told), "{error}");
        }
    }
    assert!(Tree::new().find("/pci@0,0/isa@1f").unwrap_err().ends_with("in this host; there is nothing"));
}

#[test]
fn a_long_list_ends() {
    let tree = Tree::new();
    for device in 0..20 {
        tree.add(&format!("pci0000:00/0000:00:{device:02x}.0"), NIC);
    }
    let error = tree.find("/pci@0,0/isa@1f").unwrap_err();
    assert!(error.contains("pci15d9,1528@f and 4 more") && !error.contains("pci15d9,1528@10"), "{error}");
}

#[test]
fn functions_that_have_no_path() {
    let tree = host();
    let of = |address: &str| of_in(tree.root(), address.parse().unwrap()).unwrap_err().to_string();
    assert!(of("0000:02:00.0").contains("no PCI function 0000:02:00.0 in this host"));
    tree.add("platform/0000:02:00.0", NIC);
    assert!(of("0000:02:00.0").contains("is not below a root bus"));
    fs::remove_file(tree.root().join("devices/pci0000:00/0000:00:01.0/vendor")).unwrap();
    assert!(of("0000:01:00.0").contains("/0000:00:01.0/vendor: No such file"));
    tree.file("pci0000:00/0000:00:01.0/vendor", "8086");
    assert!(of("0000:01:00.0").contains("/0000:00:01.0/vendor: invalid data"));
    // The others are found none the less.
    assert_eq!(tree.find("/pci@79,0/pci8086,151@3,2/pci15d9,1528@0").as_deref(), Ok("0000:7a:00.0"));
}

#[test]
fn names_that_are_physical_paths() {
    for (name, short) in [
        ("/pci@0,0/isa@1f", Some("/pci@0,0/isa@1f")),
        ("/devices/pci@0,0/isa@1f", Some("/pci@0,0/isa@1f")),
        ("/pci@", Some("/pci@")),
        ("/devices/pci@0,0/isa@1f:ppt", Some("/pci@0,0/isa@1f")),
        ("/pci@0,0/isa@1f:ppt", Some("/pci@0,0/isa@1f")),
        ("/pci@0,0/isa@1f:x", Some("/pci@0,0/isa@1f:x")),
        ("/dev/ppt0:ppt", None),
        ("0000:01:00.0", None),
        ("/sys/bus/pci/devices/0000:01:00.0", None),
        ("/devices/pci0000:00/0000:00:01.0", None),
        ("/dev/ppt0", None),
        ("pci@0,0", None),
        ("fd:5", None),
    ] {
        assert_eq!(is_physical(name), short.is_some(), "{name}");
        assert_eq!(without_devices(name), short.unwrap_or(name));
        if short.is_none() {
            assert_eq!(resolve(name).unwrap(), name);
        }
    }
}

/// Functions below what there is already: which of that, at which device and function, and what it is.
fn topology() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_path_is_that_of_one_function(functions in topology()) {
        let tree = Tree::new();
        // Buses: domain, number, directory. Two domains have the same root.
        let mut buses: Vec<(u32, u8, String)> =
            [(0, 0), (0, 0x80), (1, 0), (0x10000, 0)].map(|(d, b)| (d, b, format!("pci{d:04x}:{b:02x}"))).into();
        let mut taken = std::collections::BTreeSet::new();
        for (bus, place, kind) in functions {
            let (domain, number, above) = buses[bus.index(buses.len())].clone();
            let slot = Slot::from_requester_id(u16::from(number) << 8 | u16::from(place));
            let address = HostAddress::new(domain, slot);
            if !taken.insert(address) {
                continue;
            }
            let path = format!("{above}/{address}");
            let class = [0x02_0000, 0x03_0000, 0x06_0100, 0x06_0400][usize::from(kind & 3)];
            let subsystem = if kind & 4 == 0 { (0, 0) } else { (0x1462, kind.into()) };
            let is_bridge = class == 0x06_0400;
            tree.add(&path, Ids { class, own: (0x8086, kind.into()), subsystem, is_bridge });
            if is_bridge {
                buses.push((domain, u8::try_from(buses.len()).unwrap() + 0x20, path));
            }
        }
        let mut paths = std::collections::BTreeSet::new();
        for address in &taken {
            prop_assert!(paths.insert(tree.there_and_back(&address.to_string())));
        }
    }

    #[test]
    fn no_text_is_more_than_an_error(text in "(/devices)?/pci@[0-9a-g,@/:é]{0,30}") {
        let found = host().find(&text);
        prop_assert!(found.is_ok() || found.unwrap_err().starts_with(&text));
    }
}
