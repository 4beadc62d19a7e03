//! Devices at I/O ports.

/// A device that answers at a range of I/O ports.
///
/// `offset` counts from the device's first port; `data` is 1, 2 or 4 bytes, little-endian. An access may
/// reach beyond the device's last port, and of other lengths nothing worse comes than a value without
/// meaning. What is not there reads all-ones and swallows writes.
pub trait PortDevice: Send + Sync {
    /// Reads `data.len()` bytes at `offset`.
    fn read(&self, offset: u16, data: &mut [u8]);
    /// Writes `data` at `offset`.
    fn write(&self, offset: u16, data: &[u8]);
    /// Returns to the state after power-on, as the machine's reset line does. What a battery keeps stays.
    fn reset(&self);
}

/// A wide read of a device that is one byte wide: the chipset makes it one read for each port, in rising
/// order.
pub(crate) fn read_each(offset: u16, data: &mut [u8], mut byte: impl FnMut(u16) -> u8) {
    let mut port = Some(offset);
    for slot in data {
        *slot = port.map_or(0xff, &mut byte);
        port = port.and_then(|p| p.checked_add(1));
    }
}

/// A wide write of a device that is one byte wide, split as [`read_each`] splits reads.
pub(crate) fn write_each(offset: u16, data: &[u8], mut byte: impl FnMut(u16, u8)) {
    for (port, value) in (offset..=u16::MAX).zip(data) {
        byte(port, *value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_accesses_touch_each_port_once() {
        let mut data = [0; 4];
        read_each(2, &mut data, |port| port as u8);
        assert_eq!(data, [2, 3, 4, 5]);

        let mut seen = Vec::new();
        write_each(2, &[7, 8], |port, value| seen.push((port, value)));
        assert_eq!(seen, [(2, 7), (3, 8)]);
    }

    #[test]
    fn past_the_last_port_is_nothing() {
        let mut data = [0; 4];
        read_each(0xfffe, &mut data, |_| 0);
        assert_eq!(data, [0, 0, 0xff, 0xff]);

        let mut count = 0;
        write_each(0xfffe, &[0; 4], |_, _| count += 1);
        assert_eq!(count, 2);
    }
}
