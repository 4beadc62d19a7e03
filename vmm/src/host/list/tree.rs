//! All functions of a host as they are connected, and which of them go to a guest together.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Component, Path};

use passthru::host::vfio::sysfs::SysfsFunction;
use passthru::pci::HostAddress;
use serde::Serialize;

use super::function::Candidate;
use super::label;
use crate::show::names;

/// A host's functions.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Tree {
    /// Root buses, by their names.
    pub roots: Vec<Root>,
    /// IOMMU groups with several functions that a guest could have, by number. VFIO gives a group to one guest as a whole.
    pub groups: Vec<Group>,
}

/// A root bus.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Root {
    /// As sysfs names it, `pciDOMAIN:BUS`.
    pub name: String,
    /// What is on the bus, by address.
    pub functions: Vec<Node>,
}

/// A function, and what is behind it if it is a bridge.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Where it is.
    pub address: String,
    /// Where illumos has it in its device tree.
    pub path: Option<String>,
    /// Vendor id, hexadecimal and unpadded, as in the list.
    #[serde(rename = "vendor-id")]
    pub vendor: String,
    /// Device id.
    #[serde(rename = "device-id")]
    pub device: String,
    /// Vendor and device in words, or else its class.
    pub label: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// What holds it.
    pub driver: Option<String>,
    /// The node by which a VMM opens it, if a VFIO driver holds it.
    pub dev: Option<String>,
    /// What VMs by name make of it; nothing of bridges.
    pub state: Option<String>,
    /// It leads to other buses, and cannot be passed through.
    pub bridge: bool,
    /// What is behind it, by address.
    pub functions: Vec<Node>,
}

/// Functions that a guest has together or not at all.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its number.
    pub group: u32,
    /// Addresses of its functions, but for bridges.
    pub functions: Vec<String>,
}

/// A function and the names of the root and bridges before it, outermost first.
type Placed<'a> = (Vec<&'a str>, &'a Candidate);

impl Tree {
    /// Of the functions in `devices`, a directory such as `/sys/bus/pci/devices`.
    pub fn of<E>(
        devices: &Path,
        path_of: impl Fn(HostAddress) -> Result<String, E>,
        state_of: impl Fn(&SysfsFunction) -> Option<String>,
    ) -> io::Result<Tree> {
        let all = Candidate::all(devices)?;
        let mut roots: BTreeMap<&str, Vec<Placed>> = BTreeMap::new();
        for candidate in &all {
            let mut before = before(&candidate.directory);
            let root = if before.is_empty() { "" } else { before.remove(0) };
            roots.entry(root).or_default().push((before, candidate));
        }
        let roots = roots
            .into_iter()
            .map(|(name, placed)| Root {
                name: name.to_owned(),
                functions: nodes(&placed, 0, &path_of, &state_of),
            })
            .collect();
        Ok(Tree { roots, groups: groups(&all) })
    }
}

/// The parts of a function's directory that are a root bus and the bridges before the function.
fn before(directory: &Path) -> Vec<&str> {
    let parts = directory.parent().into_iter().flat_map(Path::components);
    let names = parts.filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    // Some roots are below other directories, such as those of a controller that makes a PCI domain of its own.
    let mut before: Vec<&str> = Vec::new();
    for name in names {
        if is_root(name) {
            before.clear();
            before.push(name);
        } else if !before.is_empty() && name.parse::<HostAddress>().is_ok() {
            before.push(name);
        }
    }
    before
}

/// `pciDOMAIN:BUS`
fn is_root(name: &str) -> bool {
    name.strip_prefix("pci").and_then(|rest| rest.split_once(':')).is_some_and(|(domain, bus)| {
        [domain, bus].iter().all(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

/// Those that have `depth` bridges before them, each with what has it as the next one.
fn nodes<E>(
    placed: &[Placed],
    depth: usize,
    path_of: &impl Fn(HostAddress) -> Result<String, E>,
    state_of: &impl Fn(&SysfsFunction) -> Option<String>,
) -> Vec<Node> {
    let here = placed.iter().filter(|(before, _)| before.len() == depth);
    here.map(|(_, candidate)| {
        let address = candidate.function.address.to_string();
        let behind: Vec<Placed> = placed
            .iter()
            .filter(|(before, _)| before.get(depth).is_some_and(|bridge| *bridge == address))
            .cloned()
            .collect();
        let listed = candidate.listed(path_of(candidate.function.address).ok());
        Node {
            path: listed.path,
            vendor: listed.vendor,
            device: listed.device,
            label: label(candidate.vendor(), candidate.device())
                .or_else(|| names::class(candidate.function.class)),
            group: candidate.function.group,
            driver: candidate.function.driver.clone(),
            dev: listed.dev,
            state: state_of(&candidate.function).filter(|_| !candidate.is_bridge()),
            bridge: candidate.is_bridge(),
            functions: nodes(&behind, depth + 1, path_of, state_of),
            address,
        }
    })
    .collect()
}

fn groups(all: &[Candidate]) -> Vec<Group> {
    let mut groups: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for candidate in all.iter().filter(|candidate| !candidate.is_bridge()) {
        if let Some(group) = candidate.function.group {
            groups.entry(group).or_default().push(candidate.function.address.to_string());
        }
    }
    let several = groups.into_iter().filter(|(_, functions)| functions.len() > 1);
    several.map(|(group, functions)| Group { group, functions }).collect()
}

/// A line of the text: what is before the function's name, and its columns.
struct Row<'a> {
    name: String,
    node: Option<&'a Node>,
}

/// Writes it for a person: a line for each function, below the bridge that it is behind.
pub fn text(out: &mut impl Write, tree: &Tree) -> io::Result<()> {
    let mut rows = Vec::new();
    for root in &tree.roots {
        rows.push(Row { name: root.name.clone(), node: None });
        rows_of(&root.functions, "", &mut rows);
    }
    let width = |column: fn(&Node) -> String, heading: &str| {
        let widths = rows.iter().filter_map(|row| row.node).map(|node| column(node).chars().count());
        widths.chain([heading.len()]).max().unwrap_or_default() + 2
    };
    let first = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default() + 2;
    let (group, driver, state) = (width(group, "GROUP"), width(driver, "DRIVER"), width(state, "STATE"));
    if !rows.is_empty() {
        let (f, g, d, s) = ("FUNCTION", "GROUP", "DRIVER", "STATE");
        writeln!(out, "{f:first$}{g:group$}{d:driver$}{s:state$}IDS        LABEL")?;
    }
    for Row { name, node } in &rows {
        let Some(node) = node else {
            writeln!(out, "{name}")?;
            continue;
        };
        let line = format!(
            "{name:first$}{:group$}{:driver$}{:state$}{:11}{}",
            self::group(node),
            self::driver(node),
            self::state(node),
            format!("{}:{}", node.vendor, node.device),
            node.label.as_deref().unwrap_or(MISSING)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    for Group { group, functions } in &tree.groups {
        writeln!(out, "group {group} goes to a guest as a whole: {}", functions.join(" "))?;
    }
    Ok(())
}

/// What stands for a value that there is not.
const MISSING: &str = "--";

fn group(node: &Node) -> String {
    node.group.map_or_else(|| MISSING.to_owned(), |group| group.to_string())
}

fn driver(node: &Node) -> String {
    node.driver.clone().unwrap_or_else(|| MISSING.to_owned())
}

fn state(node: &Node) -> String {
    node.state.clone().unwrap_or_else(|| MISSING.to_owned())
}

fn rows_of<'a>(nodes: &'a [Node], indent: &str, rows: &mut Vec<Row<'a>>) {
    for (at, node) in nodes.iter().enumerate() {
        let is_last = at + 1 == nodes.len();
        let (branch, below) = if is_last { ("└─", "  ") } else { ("├─", "│ ") };
        rows.push(Row { name: format!("{indent}{branch}{}", node.address), node: Some(node) });
        rows_of(&node.functions, &format!("{indent}{below}"), rows);
    }
}

/// Writes it for a program.
pub fn json(out: &mut impl Write, tree: &Tree) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, tree)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// sysfs of functions at these directories, with vendor, device, class and group.
    fn sysfs(functions: &[(&str, &str, &str, &str, u32)]) -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        let devices = sysfs.path().join("bus/pci/devices");
        fs::create_dir_all(&devices).unwrap();
        for (directory, vendor, device, class, group) in functions {
            let directory = sysfs.path().join("devices").join(directory);
            fs::create_dir_all(&directory).unwrap();
            for (file, text) in
                [("vendor", *vendor), ("device", *device), ("class", *class), ("revision", "0x1")]
            {
                fs::write(directory.join(file), text).unwrap();
            }
            symlink(format!("../groups/{group}"), directory.join("iommu_group")).unwrap();
            if *class == "0x060400" {
                fs::write(directory.join("secondary_bus_number"), "1\n").unwrap();
            }
            symlink(&directory, devices.join(directory.file_name().unwrap())).unwrap();
        }
        sysfs
    }

    fn tree(sysfs: &tempfile::TempDir) -> Tree {
        let path_of = |address| Ok::<_, ()>(format!("/{address}"));
        let state_of = |function: &SysfsFunction| {
            (function.address.slot().function() == 0).then(|| "used:web".to_owned())
        };
        Tree::of(&sysfs.path().join("bus/pci/devices"), path_of, state_of).unwrap()
    }

    #[test]
    fn functions_are_below_their_bridges_and_roots() {
        let sysfs = sysfs(&[
            ("pci0000:00/0000:00:1c.0", "0x8086", "0x9c90", "0x060400", 4),
            ("pci0000:00/0000:00:1c.0/0000:01:00.1", "0x10de", "0xbe3", "0x040300", 14),
            ("pci0000:00/0000:00:1c.0/0000:01:00.0", "0x10de", "0xa65", "0x030000", 14),
            ("pci0000:00/0000:00:1f.0", "0xfff0", "0x1", "0xff0000", 5),
            ("platform/vmd/pci10000:e0/10000:e0:01.0", "0x8086", "0x0a54", "0x010802", 6),
        ]);
        let driver = sysfs.path().join("devices/pci0000:00/0000:00:1c.0/driver");
        symlink("/sys/bus/pci/drivers/pcieport", driver).unwrap();
        let tree = tree(&sysfs);
        let mut out = Vec::new();
        text(&mut out, &tree).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "FUNCTION          GROUP  DRIVER    STATE     IDS        LABEL");
        assert_eq!(lines[1], "pci0000:00");
        assert!(
            lines[2].starts_with("├─0000:00:1c.0    4      pcieport  --        8086:9c90  Intel Corporation"),
            "{text}"
        );
        assert!(
            lines[3].starts_with("│ ├─0000:01:00.0  14     --        used:web  10de:a65   NVIDIA"),
            "{text}"
        );
        assert!(
            lines[4].starts_with("│ └─0000:01:00.1  14     --        --        10de:be3   NVIDIA"),
            "{text}"
        );
        assert_eq!(lines[5], "└─0000:00:1f.0    5      --        used:web  fff0:1     --");
        assert_eq!(lines[6], "pci10000:e0");
        assert!(lines[7].starts_with("└─10000:e0:01.0   6      --        used:web  8086:a54"), "{text}");
        assert_eq!(lines[8..], ["group 14 goes to a guest as a whole: 0000:01:00.0 0000:01:00.1"]);
    }

    #[test]
    fn what_has_no_bus_behind_it_is_no_bridge() {
        let sysfs = sysfs(&[
            ("pci0000:00/0000:00:1c.0", "0x8086", "0x9c90", "0x060400", 4),
            // An NVSwitch and a non-transparent bridge.
            ("pci0000:00/0000:00:02.0", "0x10de", "0x22a3", "0x068000", 4),
            ("pci0000:00/0000:00:03.0", "0x8086", "0x201c", "0x068000", 4),
        ]);
        let tree = tree(&sysfs);
        let found = tree.roots[0].functions.iter();
        let found: Vec<_> =
            found.map(|node| (node.address.as_str(), node.bridge, node.state.is_some())).collect();
        assert_eq!(
            found,
            [("0000:00:02.0", false, true), ("0000:00:03.0", false, true), ("0000:00:1c.0", true, false)]
        );
        assert_eq!(tree.groups[0].functions, ["0000:00:02.0", "0000:00:03.0"]);
    }

    #[test]
    fn programs_find_the_same() {
        let sysfs = sysfs(&[
            ("pci0000:00/0000:00:1c.0", "0x8086", "0x9c90", "0x060400", 4),
            ("pci0000:00/0000:00:1c.0/0000:01:00.0", "0x10de", "0xa65", "0x030000", 14),
        ]);
        let mut out = Vec::new();
        json(&mut out, &tree(&sysfs)).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["roots"][0]["name"], "pci0000:00");
        let bridge = &value["roots"][0]["functions"][0];
        assert_eq!((&bridge["bridge"], &bridge["group"]), (&true.into(), &4.into()));
        let function = &bridge["functions"][0];
        assert_eq!(
            (&function["address"], &function["path"]),
            (&"0000:01:00.0".into(), &"/0000:01:00.0".into())
        );
        assert_eq!((&function["vendor-id"], &function["bridge"]), (&"10de".into(), &false.into()));
        assert_eq!(value["groups"], serde_json::json!([]));
    }

    #[test]
    fn a_host_without_functions_is_an_empty_tree() {
        let nothing = tree(&sysfs(&[]));
        assert_eq!((nothing.roots.len(), nothing.groups.len()), (0, 0));
        let mut out = Vec::new();
        text(&mut out, &nothing).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn root_buses_are_known_by_their_names() {
        for (name, expected) in [
            ("pci0000:00", true),
            ("pci10000:e0", true),
            ("pci:", false),
            ("0000:00", false),
            ("pcibus", false),
        ] {
            assert_eq!(is_root(name), expected, "{name}");
        }
    }
}
