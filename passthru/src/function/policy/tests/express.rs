//! PCI Express, bit by bit and by the place of the function.

use super::*;

const PORT: Place = Place::BehindPort { speed: 3, width: 4 };

/// An Express capability of ones, but for version and type.
pub fn capability(version: u8, kind: u8) -> Vec<u8> {
    let mut body = [0xff; 0x3a];
    body[0] = kind << 4 | version;
    // Link of 16 GT/s and 16 lanes: the speed and width fields have values that there are.
    body[0x0a..0x0c].copy_from_slice(&[0x04, 0xfd]);
    body[0x10..0x12].copy_from_slice(&[0x04, 0xff]);
    space(capability_id::EXPRESS, &body)
}

#[test]
fn express_shows_and_takes_these_bits() {
    let integrated = built(&capability(2, 9));
    for (name, at, read, write, forward) in [
        ("version 2, integrated, interrupt message number, no slot", 0x00, 0x3e92_0010, 0, 0),
        ("payload, tags, latencies, error reporting, FLR; no phantoms, slot power", 0x04, 0x1000_8fe5, 0, 0),
        // Payload and request sizes are at their limits. Errors and pending transactions; no auxiliary power.
        ("device control and status", 0x08, 0x002f_59bf, 0x79ff, 0x000f_0000),
        ("link capabilities", 0x0c, 0, 0, 0),
        ("link control and status", 0x10, 0, 0, 0),
        ("slot capabilities", 0x14, 0, 0, 0),
        ("slot control and status", 0x18, 0, 0, 0),
        ("root control", 0x1c, 0, 0, 0),
        ("root status", 0x20, 0, 0, 0),
        ("completion timeouts and nothing else", 0x24, 0x1f, 0, 0),
        ("completion timeout control", 0x28, 0x1f, 0x1f, 0),
        ("link capabilities 2", 0x2c, 0, 0, 0),
        ("link control and status 2", 0x30, 0, 0, 0),
        ("slot capabilities 2", 0x34, 0, 0, 0),
        ("slot control and status 2", 0x38, 0, 0, 0),
    ] {
        assert_eq!(bits(&integrated, at), (read, write, forward), "{name}");
    }
    let port = built_as(&capability(2, 0), PORT, ALL, &Quirks::default());
    for (name, at, read) in [
        ("version 2, endpoint", 0x00, 0x3e02_0010),
        ("16 GT/s, 16 lanes, no ASPM or clock power management, no reports", 0x0c, 0x0040_0104),
        ("8 GT/s and 4 lanes as the port has them, the slot's clock", 0x10, 0x1043_0000),
        ("slot", 0x14, 0),
        ("slot", 0x18, 0),
        ("root", 0x1c, 0),
        ("root", 0x20, 0),
        ("speeds up to 16 GT/s", 0x2c, 0x1e),
        ("16 GT/s are the target, no state of equalization", 0x30, 0x4),
        ("slot", 0x34, 0),
        ("slot", 0x38, 0),
    ] {
        assert_eq!(bits(&port, at), (read, 0, 0), "{name}");
    }
}

#[test]
fn hidden_bits_of_express_do_not_show() {
    for (name, at, bit) in [
        ("phantom functions", 0x04, 3),
        ("attention button, undefined since 1.1", 0x04, 12),
        ("ERR_COR subclass", 0x04, 16),
        ("slot power limit", 0x04, 18),
        ("slot power scale", 0x04, 26),
        ("mixed payload sizes", 0x04, 29),
        ("TEE-IO", 0x04, 30),
        ("phantom functions enable", 0x08, 9),
        ("auxiliary power enable", 0x08, 10),
        ("initiate function-level reset", 0x08, 15),
        ("auxiliary power detected", 0x08, 20),
        ("emergency power reduction detected", 0x08, 22),
        ("ASPM L0s", 0x0c, 10),
        ("ASPM L1", 0x0c, 11),
        ("L1 exit latency", 0x0c, 15),
        ("clock power management", 0x0c, 18),
        ("surprise down reporting", 0x0c, 19),
        ("data link layer active reporting", 0x0c, 20),
        ("bandwidth notification", 0x0c, 21),
        ("port number", 0x0c, 24),
        ("ASPM control", 0x10, 0),
        ("common clock", 0x10, 6),
        ("extended synch", 0x10, 7),
        ("clock power management enable", 0x10, 8),
        ("link training", 0x10, 27),
        ("ARI forwarding", 0x24, 5),
        ("atomic routing", 0x24, 6),
        ("32-bit atomic completer", 0x24, 7),
        ("64-bit atomic completer", 0x24, 8),
        ("128-bit compare and swap completer", 0x24, 9),
        ("no relaxed ordering between peers", 0x24, 10),
        ("LTR", 0x24, 11),
        ("TPH completer", 0x24, 12),
        ("10-bit tag completer", 0x24, 16),
        ("10-bit tag requester", 0x24, 17),
        ("OBFF", 0x24, 18),
        ("extended fmt field", 0x24, 20),
        ("end-to-end prefixes", 0x24, 21),
        ("emergency power reduction", 0x24, 24),
        ("FRS", 0x24, 31),
        ("ARI forwarding enable", 0x28, 5),
        ("atomic requester enable", 0x28, 6),
        ("ID-based ordering of requests", 0x28, 8),
        ("ID-based ordering of completions", 0x28, 9),
        ("LTR enable", 0x28, 10),
        ("10-bit tag requester enable", 0x28, 12),
        ("OBFF enable", 0x28, 13),
        ("equalization", 0x30, 17),
        ("compliance", 0x30, 4),
    ] {
        for place in [Place::RootBus, PORT] {
            let built = built_as(&capability(2, 0), place, ALL, &Quirks::default());
            let (read, write, forward) = bits(&built, at);
            assert_eq!((read | write | forward) >> bit & 1, 0, "{name}, {place:?}");
        }
    }
}

#[test]
fn types_mend_themselves_by_place() {
    const HIDDEN: Option<(u32, u32)> = None;
    for (name, version, kind, place, expected) in [
        ("an endpoint on a root bus is integrated", 2, 0, Place::RootBus, Some((0x92, 0))),
        ("an integrated one stays so", 2, 9, Place::RootBus, Some((0x92, 0))),
        ("a legacy one is conventional", 2, 1, Place::RootBus, HIDDEN),
        ("an endpoint keeps its link", 2, 0, PORT, Some((0x02, 0x104))),
        ("a legacy one too", 2, 1, PORT, Some((0x12, 0x104))),
        ("an integrated one has the port's", 2, 9, PORT, Some((0x02, 0x043))),
        ("in the first version", 1, 9, PORT, Some((0x01, 0x043))),
        ("version 0 is a first one", 0, 0, PORT, Some((0x01, 0x104))),
        ("a root port", 2, 4, PORT, HIDDEN),
        ("an upstream port", 2, 5, PORT, HIDDEN),
        ("a downstream port", 2, 6, Place::RootBus, HIDDEN),
        ("a bridge to PCI", 2, 7, Place::RootBus, HIDDEN),
        ("a bridge from PCI", 2, 8, PORT, HIDDEN),
        ("an event collector", 2, 10, Place::RootBus, HIDDEN),
        ("a type that there is not", 2, 15, PORT, HIDDEN),
    ] {
        let built = built_as(&capability(version, kind), place, ALL, &Quirks::default());
        let found = shows(&built).then(|| (bits(&built, 0).0 >> 16 & 0xff, bits(&built, 0x0c).0 & 0x3ff));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_link_that_a_function_does_not_tell_is_its_ports() {
    let mut config = capability(2, 0);
    config[usize::from(BASE) + 0x0c..][..4].fill(0);
    let built = built_as(&config, Place::BehindPort { speed: 6, width: 32 }, ALL, &Quirks::default());
    assert_eq!(bits(&built, 0x0c).0, 0x0040_0206, "a virtual function's reads zero");
    assert_eq!(bits(&built, 0x10).0 >> 16 & 0x3ff, 0x206);
    assert_eq!(bits(&built, 0x2c).0, 0x7e);
}

#[test]
fn express_has_the_version_that_there_is_room_for() {
    for (name, place, next, version) in [
        ("all of it", Place::RootBus, 0x2c, Some(2)),
        ("not the second version's", Place::RootBus, 0x28, Some(1)),
        ("not even the first", Place::RootBus, 0x08, None),
        ("links of the second version", PORT, 0x34, Some(2)),
        ("links of the first", PORT, 0x30, Some(1)),
        ("no links", PORT, 0x10, None),
    ] {
        let mut config = capability(2, 9);
        config[usize::from(BASE) + 1] = BASE as u8 + next;
        config[usize::from(BASE) + usize::from(next)..][..4].copy_from_slice(&[9, 0, 4, 0]);
        let built = built_as(&config, place, ALL, &Quirks::default());
        let first = built.registers.dword(CAPABILITIES).shadow;
        let found = (first == u32::from(BASE)).then(|| bits(&built, 0).0 >> 16 & 0xf);
        assert_eq!(found, version, "{name}");
        let vendor = built.registers.dword(BASE + u16::from(next));
        // One that starts among the Device registers cannot be right, nor can they.
        let expected = if next < 0x0c { 0 } else { 0x0004_0009 };
        assert_eq!(vendor.shadow, expected, "{name}: what follows stays");
    }
}

#[test]
fn payload_sizes_go_no_further_than_the_hosts() {
    // It could do 1 KiB (3), the host set 256 bytes (1).
    let mut config = capability(2, 0);
    config[usize::from(BASE) + 4] = 0x03;
    config[usize::from(BASE) + 8..][..2].copy_from_slice(&[0x30, 0x28]);
    let Built { mut registers, .. } = built(&config);
    assert_eq!(registers.dword(BASE + 4).shadow & 0x7, 1, "the guest is told of 256 bytes");
    for (write, read) in
        [(0x5000u16, 0x5000), (0x0020, 0x0020), (0x0040, 0x0020), (0x6000, 0x0000), (0x70e0, 0x0000)]
    {
        assert_eq!(registers.write(BASE + 8, &write.to_le_bytes()), None, "nothing of it is forwarded");
        assert_eq!(registers.word(BASE + 8), read, "{write:#x}");
    }
}
