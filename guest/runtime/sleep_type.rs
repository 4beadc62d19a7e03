//! Finds the sleep type of `_S5` in a definition block without interpreting it.

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const BYTE_PREFIX: u8 = 0x0a;

/// First element of `Name (_S5_, Package () {...})` (ACPI 6.5, 7.4.2 and 20.2.5.4), `byte` giving the block's bytes.
/// `None` if there is no such package or its first element is not a byte.
#[must_use]
pub fn s5(length: u64, byte: impl Fn(u64) -> u8) -> Option<u8> {
    let at = |offset: u64| (offset < length).then(|| byte(offset));
    let matches = |offset: u64, wanted: &[u8]| wanted.iter().zip(offset..).all(|(b, o)| at(o) == Some(*b));
    // `Name` may give the path from the root.
    let names: [&[u8]; 2] = [&[NAME_OP, b'_', b'S', b'5', b'_'], &[NAME_OP, b'\\', b'_', b'S', b'5', b'_']];
    for offset in 0..length {
        let Some(name) = names.iter().find(|name| matches(offset, name)) else { continue };
        let package = offset + name.len() as u64;
        if at(package)? != PACKAGE_OP {
            continue;
        }
        // The upper two bits of the package length count the bytes that follow it; then comes the element count.
        let elements = package + 3 + u64::from(at(package + 1)? >> 6);
        return match at(elements)? {
            BYTE_PREFIX => at(elements + 1),
            small @ 0..=1 => Some(small),
            _ => None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::s5;

    #[test]
    fn the_first_element_is_found() {
        let table: [(&[u8], Option<u8>); 7] = [
            (b"xx\x08_S5_\x12\x06\x04\x0a\x05\x00\x00\x00", Some(5)),
            (b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00", Some(0)),
            (b"\x08\\_S5_\x12\x06\x04\x01\x00\x00\x00", Some(1)),
            (b"\x08_S5_\x12\x40\x08\x04\x0a\x07\x0a\x07\x00\x00", Some(7)),
            (b"\x08_S5_\x12\x06\x04\x0b\x05\x00", None),
            (b"\x08_S5_\x12\x06", None),
            (b"\x08_S4_\x12\x06\x04\x0a\x05\x00\x00\x00", None),
        ];
        for (block, wanted) in table {
            assert_eq!(s5(block.len() as u64, |offset| block[offset as usize]), wanted, "{block:x?}");
        }
    }
}
