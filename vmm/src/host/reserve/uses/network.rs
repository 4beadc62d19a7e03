//! Whom the default routes go through.

use std::collections::BTreeSet;
use std::fs;

use super::{Use, Uses, names, text};
use crate::host::reserve::Host;

/// A route that is in use (`linux/route.h`).
const UP: u32 = 0x1;

pub fn read(host: &Host, uses: &mut Uses) {
    let v4 = text(&host.processes.join("net/route"));
    let v6 = text(&host.processes.join("net/ipv6_route"));
    for interface in v4.lines().filter_map(default_v4).chain(v6.lines().filter_map(default_v6)) {
        for lower in with_lower(host, interface) {
            // A card's interface has a link to it; those made by software have none.
            if let Ok(directory) = fs::canonicalize(host.sysfs.join("class/net").join(lower)) {
                uses.add(&directory, &Use::DefaultRoute { interface: interface.to_owned() });
            }
        }
    }
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, numbers hexadecimal.
fn default_v4(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [interface, "00000000", _, flags, _, _, _, "00000000", ..] = &words[..] else { return None };
    (u32::from_str_radix(flags, 16).ok()? & UP != 0).then_some(interface)
}

/// `destination prefix-length source prefix-length next-hop metric refcount use flags interface`, hexadecimal.
fn default_v6(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [destination, "00", _, _, _, _, _, _, flags, interface] = &words[..] else { return None };
    // The kernel has a route to nowhere at the loopback interface where there is no other.
    let usable = u32::from_str_radix(flags, 16).ok()? & UP != 0 && *interface != "lo";
    (usable && destination.bytes().all(|digit| digit == b'0')).then_some(interface)
}

/// The interface, and those that it is made of: of a bridge, a bond, a VLAN.
fn with_lower(host: &Host, interface: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut wanted = vec![interface.to_owned()];
    while let Some(interface) = wanted.pop() {
        let directory = host.sysfs.join("class/net").join(&interface);
        if found.insert(interface) {
            wanted.extend(
                names(&directory).iter().filter_map(|name| name.strip_prefix("lower_").map(str::to_owned)),
            );
        }
    }
    found
}
