//! Message data that a guest can let its devices send to itself without ending.

/// Vectors below are exceptions'; and a function of up to 32 messages puts a message's number into the lower bits.
const FIRST_VECTOR: u8 = 0x20;
const DELIVERY: u8 = 0x7;
/// SMI, NMI and INIT (Intel SDM volume 3, 11.11.2).
const FATAL_DELIVERIES: [u8; 3] = [2, 4, 5];

/// A value with a rule applied to each byte of it that is written, with the byte's offset.
pub fn each_byte(offset: u64, bytes: u64, value: u64, mut rule: impl FnMut(u64, u8) -> u8) -> u64 {
    (0..bytes).fold(0, |word, n| word | u64::from(rule(offset + n, (value >> (8 * n)) as u8)) << (8 * n))
}

/// The first byte of message data.
pub fn vector(byte: u8) -> u8 {
    if byte < FIRST_VECTOR { byte | 0x40 } else { byte }
}

/// The second byte of message data.
pub fn delivery(byte: u8) -> u8 {
    if FATAL_DELIVERIES.contains(&(byte & DELIVERY)) { byte & !DELIVERY } else { byte }
}

#[cfg(test)]
mod tests {
    use super::{delivery, each_byte, vector};

    #[test]
    fn no_vector_becomes_an_exception_with_any_message_number() {
        for byte in 0..=u8::MAX {
            for messages in [1, 2, 4, 8, 16, 32] {
                let first = vector(byte) & !(messages - 1);
                assert!(first >= 0x20, "{byte:#x} with {messages} messages");
            }
        }
        assert_eq!(vector(0x93), 0x93);
    }

    #[test]
    fn fatal_deliveries_become_fixed() {
        for (byte, wanted) in [(0, 0), (1, 1), (2, 0), (3, 3), (4, 0), (0xfd, 0xf8), (0xc7, 0xc7)] {
            assert_eq!(delivery(byte), wanted, "{byte:#x}");
        }
    }

    #[test]
    fn a_rule_sees_the_bytes_that_are_written_and_no_others() {
        let mut seen = Vec::new();
        let value = each_byte(0x1e, 4, 0x1122_3344_5566_7788, |offset, byte| {
            seen.push((offset, byte));
            byte ^ 0xff
        });
        assert_eq!(seen, [(0x1e, 0x88), (0x1f, 0x77), (0x20, 0x66), (0x21, 0x55)]);
        assert_eq!(value, 0xaa99_8877);
    }
}
