//! What an initramfs needs so that drivers in it do not get a reserved function first: vfio-pci is in it, is loaded before
//! those drivers, and is told the ids of the functions.
//!
//! All of it is in files of this program's own. The one in `modprobe.d` has a comment line for each function, from which the
//! rest of it is made.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use passthru::host::vfio::sysfs;
use ppt_files::{file_text, line_edit};

use super::Host;
use super::carry_out::{self, bytes_of};
use super::change::{Change, WholeFile};
use super::inventory::{Function, Inventory};
use super::refusal::Refusal;
use super::uses::Uses;

/// Below `/etc`.
const MODPROBE: &str = "modprobe.d/slotpass.conf";
const TOOLS: &str = "initramfs-tools";
const TOOLS_HOOK: &str = "initramfs-tools/hooks/slotpass";
const DRACUT: &str = "dracut.conf.d";
const DRACUT_FILE: &str = "dracut.conf.d/slotpass.conf";

const HEAD: &str = "# Made by `slotpass reserve --initramfs`, and removed by `slotpass release --initramfs`.\n\
                    # The ids are those of all such devices, not only of the ones named here.\n";
/// A line for each function: name, ids as vfio-pci's parameter takes them, modules that would take it.
const ENTRY: &str = "# function ";
const HOOK: &str = "#!/bin/sh\n\
                    # Made by `slotpass reserve --initramfs`: puts vfio-pci into the initramfs, with /etc/modprobe.d.\n\
                    [ \"$1\" = prereqs ] && exit 0\n\
                    . /usr/share/initramfs-tools/hook-functions\n\
                    manual_add_modules vfio-pci\n";

/// A function in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    ids: String,
    modules: Vec<String>,
}

impl Entry {
    fn of(function: &Function) -> Entry {
        let mut modules = BTreeSet::new();
        // The driver's module may have another name than the driver.
        modules.extend(
            sysfs::link_name(&function.directory.join("driver/module"))
                .filter(|m| !sysfs::is_vfio(&m.replace('_', "-"))),
        );
        if let Some(modalias) = function.modalias() {
            modules.extend(carry_out::modules_for(&modalias));
        }
        let modules =
            modules.into_iter().filter(|module| is_word(module) && !module.starts_with("vfio")).collect();
        Entry { name: name(function), ids: ids(function), modules }
    }

    fn parse(line: &str) -> Option<Entry> {
        let mut words = line.strip_prefix(ENTRY)?.split(' ');
        let (name, ids) = (words.next()?.to_owned(), words.next()?.to_owned());
        let is_id = |part: &str| part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let modules = words.next().unwrap_or_default().split(',').filter(|module| is_word(module));
        let modules = modules.map(str::to_owned).collect();
        ids.split(':').all(is_id).then_some(Entry { name, ids, modules })
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn name(function: &Function) -> String {
    function.path.clone().unwrap_or_else(|| function.address().to_string())
}

/// `8086:37d2:15d9:37d2`, as vfio-pci's parameter `ids` takes them. Without those of a subsystem it would take them all.
fn ids(function: &Function) -> String {
    let identity = &function.identity;
    let (vendor, device) = identity.subsystem.unwrap_or_else(|| (0, function.subsystem_device()));
    format!("{:04x}:{:04x}:{vendor:04x}:{device:04x}", identity.vendor, identity.device)
}

/// Whether an entry is that of one of these functions, or has one of these names.
fn is_of(entry: &Entry, functions: &[&Function], names: &[String]) -> bool {
    let is_of =
        |function: &Function| entry.name == name(function) || entry.name == function.address().to_string();
    functions.iter().any(|function| is_of(function)) || names.contains(&entry.name)
}

/// Whether there is an entry with this name, of a function that may have been taken out.
pub fn has(host: &Host, name: &str) -> Result<bool, Refusal> {
    Ok(entries(host)?.iter().any(|entry| entry.name == name))
}

fn parse(text: &str) -> Vec<Entry> {
    text.lines().filter_map(Entry::parse).collect()
}

/// The file; nothing without functions.
fn render(entries: &[Entry]) -> Option<String> {
    if entries.is_empty() {
        return None;
    }
    let ids: BTreeSet<&str> = entries.iter().map(|entry| entry.ids.as_str()).collect();
    let modules: BTreeSet<&str> =
        entries.iter().flat_map(|entry| &entry.modules).map(String::as_str).collect();
    let mut text = HEAD.to_owned();
    for Entry { name, ids, modules } in entries {
        text += format!("{ENTRY}{name} {ids} {}", modules.join(",")).trim_end();
        text.push('\n');
    }
    text += &format!("options vfio-pci ids={}\n", ids.into_iter().collect::<Vec<_>>().join(","));
    for module in modules {
        text += &format!("softdep {module} pre: vfio-pci\n");
    }
    Some(text)
}

/// Adds functions.
pub fn add(
    host: &Host,
    inventory: &Inventory,
    uses: &Uses,
    functions: &[&Function],
) -> Result<(Vec<Change>, Vec<String>), Refusal> {
    if !host.etc.join(TOOLS).is_dir() && !host.etc.join(DRACUT).is_dir() {
        return Err(Refusal::NoInitramfs(host.etc.clone()));
    }
    let mut notes = Vec::new();
    let mut entries = entries(host)?;
    for function in functions {
        let same = inventory.iter().filter(|other| ids(other) == ids(function));
        for other in
            same.filter(|other| functions.iter().all(|function| function.address() != other.address()))
        {
            if let Some(found) = uses.of(host, other).into_iter().next() {
                return Err(Refusal::SameIds { address: function.address(), other: other.address(), found });
            }
            notes.push(format!(
                "{}: has the ids of {} ({}): vfio-pci takes it in the initramfs as well",
                other.address(),
                function.address(),
                ids(function)
            ));
        }
        let entry = Entry::of(function);
        if entry.modules.is_empty() {
            notes.push(format!(
                "{}: no module drives it, so that only the ids keep it for guests; a driver that is built into the kernel takes it first",
                function.address()
            ));
        }
        entries.retain(|other| other.name != entry.name);
        entries.push(entry);
    }
    Ok((changes(host, &entries)?, [notes, vec![rebuild(host)]].concat()))
}

/// Removes functions, and what has these names and is not in this host.
pub fn remove(
    host: &Host,
    functions: &[&Function],
    absent: &[String],
) -> Result<(Vec<Change>, Vec<String>), Refusal> {
    let mut entries = entries(host)?;
    entries.retain(|entry| !is_of(entry, functions, absent));
    let changes = changes(host, &entries)?;
    let notes = if changes.is_empty() { Vec::new() } else { vec![rebuild(host)] };
    Ok((changes, notes))
}

/// What is said of functions that stay in the initramfs.
pub fn staying(host: &Host, functions: &[&Function], absent: &[String]) -> Result<Vec<String>, Refusal> {
    let entries = entries(host)?;
    let stay = entries.iter().filter(|entry| is_of(entry, functions, absent));
    let note = |Entry { name, .. }: &Entry| {
        format!(
            "{name}: the initramfs still takes it for guests at boot; what ends that: slotpass release --initramfs {}",
            line_edit::quoted(name)
        )
    };
    Ok(stay.map(note).collect())
}

fn entries(host: &Host) -> Result<Vec<Entry>, Refusal> {
    let text = bytes_of(&host.etc.join(MODPROBE))?.unwrap_or_default();
    Ok(parse(&String::from_utf8_lossy(&text)))
}

fn changes(host: &Host, entries: &[Entry]) -> Result<Vec<Change>, file_text::ReadError> {
    let conf = render(entries);
    let dracut = format!("force_drivers+=\" vfio-pci \"\ninstall_items+=\" /etc/{MODPROBE} \"\n");
    let any = conf.is_some();
    let mut changes = Vec::new();
    let mut file = |below: &str, contents: Option<String>, executable| {
        let path = host.etc.join(below);
        let before = bytes_of(&path)?;
        let contents = contents.map(String::into_bytes);
        let is_program = || fs::metadata(&path).is_ok_and(|file| file.mode() & 0o111 == 0o111);
        let lacks_mode = executable && contents.is_some() && !is_program();
        if before != contents || lacks_mode {
            changes.push(Change::Whole(WholeFile { path, before, contents, executable }));
        }
        Ok(())
    };
    file(MODPROBE, conf, false)?;
    if host.etc.join(TOOLS).is_dir() {
        file(TOOLS_HOOK, any.then(|| HOOK.to_owned()), true)?;
    }
    if host.etc.join(DRACUT).is_dir() {
        file(DRACUT_FILE, any.then_some(dracut), false)?;
    }
    Ok(changes)
}

fn rebuild(host: &Host) -> String {
    // All of them: the kernel that is booted next may be another.
    let command = match host.etc.join(TOOLS).is_dir() {
        true => "update-initramfs -u -k all",
        false => "dracut --regenerate-all --force",
    };
    format!("the initramfs is as it was until it is made anew: {command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, ids: &str, modules: &[&str]) -> Entry {
        Entry { name: name.into(), ids: ids.into(), modules: modules.iter().map(|m| (*m).into()).collect() }
    }

    #[test]
    fn the_file_is_made_from_its_functions() {
        let entries = [
            entry("/pci@0,0/pci1af4,1100@5", "8086:10d3:1af4:1100", &["e1000e"]),
            entry("/pci@0,0/pci1af4,1100@4", "1b36:0010", &[]),
            entry("0000:05:00.0", "8086:10d3:1af4:1100", &["e1000e", "igb"]),
        ];
        let text = render(&entries).unwrap();
        assert!(text.contains("\noptions vfio-pci ids=1b36:0010,8086:10d3:1af4:1100\n"), "{text}");
        assert!(text.ends_with("\nsoftdep e1000e pre: vfio-pci\nsoftdep igb pre: vfio-pci\n"), "{text}");
        assert_eq!(parse(&text), entries);
        assert_eq!(render(&[]), None);
    }

    #[test]
    fn lines_that_are_no_functions_are_none() {
        for line in [
            "",
            "# function",
            "# function a",
            "# function a 8086",
            "# function a 8086:10d3:x y",
            "options vfio-pci ids=1:2",
        ] {
            let expected = if line == "# function a 8086" { 1 } else { 0 };
            assert_eq!(parse(line).len(), expected, "{line}");
        }
        assert_eq!(parse("# function a 8086:10d3 x;y,ok")[0].modules, ["ok"]);
    }
}
