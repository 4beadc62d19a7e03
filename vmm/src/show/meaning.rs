//! What values of registers mean, in a few words. Bits are those of PCIe 6.0 §7.5 to §7.9.

/// The names of the bits that are set, by bit.
fn bits(value: u32, names: &[(u32, &str)]) -> String {
    let set: Vec<&str> =
        names.iter().filter(|(bit, _)| value >> bit & 1 != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "none".to_owned() } else { set.join(", ") }
}

fn field(value: u32, low: u32, width: u32) -> u32 {
    value >> low & ((1 << width) - 1)
}

/// §7.5.1.1.3
pub fn command(value: u32) -> String {
    bits(
        value,
        &[
            (0, "I/O"),
            (1, "memory"),
            (2, "bus master"),
            (6, "parity errors"),
            (8, "SERR"),
            (10, "INTx disabled"),
        ],
    )
}

/// §7.5.1.1.4
pub fn status(value: u32) -> String {
    bits(
        value,
        &[
            (3, "INTx pending"),
            (4, "capabilities"),
            (8, "master parity error"),
            (11, "signalled target abort"),
            (12, "received target abort"),
            (13, "received master abort"),
            (14, "signalled system error"),
            (15, "parity error"),
        ],
    )
}

/// §7.5.1.1.9
pub fn header_type(value: u32) -> String {
    let layout = match value & 0x7f {
        0 => "endpoint",
        1 => "bridge",
        _ => "other",
    };
    if value & 0x80 == 0 { layout.to_owned() } else { format!("{layout}, multi-function") }
}

/// §7.5.1.1.13
pub fn pin(value: u32) -> String {
    match value {
        0 => "no INTx".to_owned(),
        1..=4 => format!("INT{}", char::from(b'A' + (value - 1) as u8)),
        _ => "reserved".to_owned(),
    }
}

/// A pointer to the next capability.
pub fn next(value: u32) -> String {
    match value >> 8 & 0xfc {
        0 => "last".to_owned(),
        next => format!("next {next:#x}"),
    }
}

/// The same of an extended capability.
pub fn extended_next(value: u32) -> String {
    match value >> 20 & 0xffc {
        0 => "last".to_owned(),
        next => format!("next {next:#x}"),
    }
}

/// §7.5.2.1
pub fn power_capabilities(value: u32) -> String {
    let states = bits(value, &[(9, "D1"), (10, "D2")]);
    let events = if value >> 11 == 0 { "no PME" } else { "PME" };
    format!("version {}, further states {states}, {events}", value & 0x7)
}

/// §7.5.2.2
pub fn power_state(value: u32) -> String {
    let state = ["D0", "D1", "D2", "D3hot"].get(field(value, 0, 2) as usize).copied().unwrap_or_default();
    let reset = if value >> 3 & 1 == 0 { "D3hot resets" } else { "no soft reset" };
    format!("{state}, {reset}{}", if value >> 8 & 1 == 0 { "" } else { ", PME enabled" })
}

/// §7.7.1.2
pub fn msi_control(value: u32) -> String {
    let count = |low| 1u32 << field(value, low, 3).min(5);
    let (on, address) = (value & 1 != 0, if value >> 7 & 1 == 0 { 32 } else { 64 });
    let masking = if value >> 8 & 1 == 0 { "no masking" } else { "masking" };
    let state = if on { format!("{} on", count(4)) } else { "off".to_owned() };
    let plural = if count(1) == 1 { "" } else { "s" };
    format!("{} vector{plural}, {address} bits, {masking}, {state}", count(1))
}

/// §7.7.2.2
pub fn msix_control(value: u32) -> String {
    let state = match (value >> 15 & 1, value >> 14 & 1) {
        (0, _) => "off",
        (_, 0) => "on",
        _ => "on, all masked",
    };
    let count = (value & 0x7ff) + 1;
    format!("{count} vector{}, {state}", if count == 1 { "" } else { "s" })
}

/// §7.7.2.3, §7.7.2.4
pub fn bar_offset(value: u32) -> String {
    format!("BAR {} + {:#x}", value & 0x7, value & !0x7)
}

/// §7.5.3.2
pub fn express_capabilities(value: u32) -> String {
    let kind = match field(value, 4, 4) {
        0 => "endpoint",
        1 => "legacy endpoint",
        4 => "root port",
        5 => "upstream port",
        6 => "downstream port",
        7 => "bridge to PCI",
        8 => "bridge from PCI",
        9 => "integrated endpoint",
        10 => "event collector",
        _ => "reserved type",
    };
    format!("version {}, {kind}", value & 0xf)
}

/// §7.5.3.3
pub fn device_capabilities(value: u32) -> String {
    let more = bits(value, &[(5, "extended tags"), (15, "error roles"), (28, "FLR")]);
    format!("payload to {}, {more}", 128u32 << field(value, 0, 3))
}

/// §7.5.3.4
pub fn device_control(value: u32) -> String {
    format!("payload {}, requests {}", 128u32 << field(value, 5, 3), 128u32 << field(value, 12, 3))
}

/// §7.5.3.5
pub fn device_status(value: u32) -> String {
    bits(
        value,
        &[
            (0, "correctable error"),
            (1, "non-fatal error"),
            (2, "fatal error"),
            (3, "unsupported request"),
            (4, "auxiliary power"),
            (5, "transactions pending"),
        ],
    )
}

fn speed(code: u32) -> &'static str {
    ["?", "2.5", "5", "8", "16", "32", "64"].get(code as usize).copied().unwrap_or("?")
}

/// §7.5.3.6
pub fn link_capabilities(value: u32) -> String {
    if value & 0xf == 0 {
        return "no link".to_owned();
    }
    let power = ["no ASPM", "L0s", "L1", "L0s, L1"].get(field(value, 10, 2) as usize).copied();
    format!("{} GT/s, x{}, {}", speed(value & 0xf), field(value, 4, 6), power.unwrap_or_default())
}

/// §7.5.3.7
pub fn link_control(value: u32) -> String {
    let power = ["ASPM off", "L0s on", "L1 on", "L0s and L1 on"].get(field(value, 0, 2) as usize).copied();
    format!("{}{}", power.unwrap_or_default(), if value >> 8 & 1 == 0 { "" } else { ", clock PM on" })
}

/// §7.5.3.8
pub fn link_status(value: u32) -> String {
    if value & 0xf == 0 {
        return "no link".to_owned();
    }
    format!("{} GT/s, x{}", speed(value & 0xf), field(value, 4, 6))
}

/// §7.5.3.15
pub fn device_capabilities_2(value: u32) -> String {
    bits(
        value,
        &[
            (4, "completion timeout off"),
            (5, "ARI forwarding"),
            (11, "LTR"),
            (18, "OBFF"),
            (16, "10-bit tags"),
        ],
    )
}

/// ECN "Advanced Capabilities for Conventional PCI"
pub fn advanced_features(value: u32) -> String {
    bits(value, &[(0, "transactions pending"), (1, "FLR")])
}

/// §7.8.4.2 and §7.8.4.3: errors that are not correctable.
pub fn uncorrectable(value: u32) -> String {
    bits(
        value,
        &[
            (4, "data link protocol"),
            (5, "surprise down"),
            (12, "poisoned TLP"),
            (13, "flow control"),
            (14, "completion timeout"),
            (15, "completer abort"),
            (16, "unexpected completion"),
            (17, "receiver overflow"),
            (18, "malformed TLP"),
            (19, "ECRC"),
            (20, "unsupported request"),
            (21, "ACS violation"),
            (22, "internal"),
        ],
    )
}

/// §9.3.3.5 and §9.3.3.6
pub fn virtual_functions(value: u32) -> String {
    format!("{} functions", value & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_real_functions() {
        for (got, want) in [
            (command(0x0406), "memory, bus master, INTx disabled"),
            (command(0), "none"),
            (status(0x4010), "capabilities, signalled system error"),
            (header_type(0x80), "endpoint, multi-function"),
            (pin(1), "INTA"),
            (pin(0), "no INTx"),
            (next(0x6005), "next 0x60"),
            (extended_next(0x1482_0001), "next 0x148"),
            (power_capabilities(0xc823), "version 3, further states none, PME"),
            (power_state(0x0008), "D0, no soft reset"),
            (power_state(0x0103), "D3hot, D3hot resets, PME enabled"),
            (msi_control(0x0186), "8 vectors, 64 bits, masking, off"),
            (msi_control(0x00a7), "8 vectors, 64 bits, no masking, 4 on"),
            (msix_control(0xc03f), "64 vectors, on, all masked"),
            (bar_offset(0x2003), "BAR 3 + 0x2000"),
            (express_capabilities(0x0002), "version 2, endpoint"),
            (device_capabilities(0x1000_8021), "payload to 256, extended tags, error roles, FLR"),
            (device_control(0x2810), "payload 128, requests 512"),
            (link_capabilities(0x0000_0c43), "8 GT/s, x4, L0s, L1"),
            (link_status(0x0011), "2.5 GT/s, x1"),
            (uncorrectable(0x0010_4000), "completion timeout, unsupported request"),
        ] {
            assert_eq!(got, want);
        }
    }
}
