//! A sentence without an allocator: why a check failed, or what it saw.

use core::fmt::{self, Write};

/// At most 112 bytes; what is longer is cut.
pub struct Text {
    bytes: [u8; 112],
    used: usize,
}

/// What a check found, or why it failed.
pub type Check<T = ()> = Result<T, Text>;

impl Text {
    #[must_use]
    pub fn new(sentence: fmt::Arguments) -> Self {
        let mut text = Self { bytes: [0; 112], used: 0 };
        // An error means that the sentence was cut.
        let _ = text.write_fmt(sentence);
        text
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            let end = self.used + letter.len_utf8();
            let place = self.bytes.get_mut(self.used..end).ok_or(fmt::Error)?;
            letter.encode_utf8(place);
            self.used = end;
        }
        Ok(())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.bytes[..self.used]).unwrap_or("?"))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Leaves the function with a [`Text`](crate::Text).
#[macro_export]
macro_rules! fail {
    ($($text:tt)*) => { return Err($crate::Text::new(format_args!($($text)*))) };
}

/// Leaves the function with a [`Text`](crate::Text) unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            $crate::fail!($($text)*);
        }
    };
}

/// Leaves the function with a [`Text`](crate::Text) that shows both numbers in hex, unless they are equal.
#[macro_export]
macro_rules! ensure_equal {
    ($seen:expr, $wanted:expr, $($text:tt)*) => {
        match (u64::from($seen), u64::from($wanted)) {
            (seen, wanted) => $crate::ensure!(
                seen == wanted,
                "{}: is {seen:#x}, should be {wanted:#x}", format_args!($($text)*)
            ),
        }
    };
}
