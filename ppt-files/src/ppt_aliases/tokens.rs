//! The words of a line, as the kernel's `kobj_lex` finds them.

/// The longest name that the kernel takes (MAXPATHLEN without the terminator).
const LONGEST: usize = 1023;

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A bare name, or a text in quotes without them.
    Name(Vec<u8>),
    /// Joins what is before and after it.
    Comma,
    /// Neither, which the kernel skips with a warning.
    Unexpected(Vec<u8>),
    /// What follows a quote that is not closed. It is the last one.
    OpenQuote(Vec<u8>),
    /// The start of a name that is too long. It is the last one.
    TooLong(Vec<u8>),
}

/// The words of a line. A comment ends it.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    /// Of a line without its newline.
    pub fn of(line: &'a [u8]) -> Tokens<'a> {
        Tokens { rest: line }
    }

    /// How much of the line is left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Goes to the next word, if there is one.
    pub fn skip_blanks(&mut self) {
        // A carriage return ends a line too, so that it is nothing at the end of one.
        self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take_while(&mut self, goes_on: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().take_while(|byte| goes_on(**byte)).count();
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    /// What is in quotes, after the first. A backslash takes the next character as it is, or a character by its octal
    /// number.
    fn string(&mut self) -> Token {
        let all = self.rest;
        let mut text = Vec::new();
        while let Some(byte) = self.next_byte() {
            match byte {
                b'"' => return limited(text),
                b'\\' => match self.rest.first() {
                    Some(b'0'..=b'7') => {
                        let digits = self.take_while(|byte| matches!(byte, b'0'..=b'7'));
                        let number = digits
                            .iter()
                            .fold(0_u32, |number, digit| number << 3 | u32::from(digit.wrapping_sub(b'0')));
                        text.push(number as u8);
                    }
                    // Digits that are not octal are no number: zero, and then themselves.
                    Some(b'8' | b'9') => text.push(0),
                    Some(_) => text.extend(self.next_byte()),
                    None => {}
                },
                _ => text.push(byte),
            }
        }
        Token::OpenQuote(all.to_owned())
    }

    /// A name without quotes, from its first character.
    fn name(&mut self) -> Token {
        let mut text = Vec::new();
        while let Some(byte) = self.rest.first().copied().filter(|byte| is_name(*byte) || *byte == b'\\') {
            self.next_byte();
            match byte {
                b'\\' => text.extend(self.next_byte()),
                _ => text.push(byte),
            }
        }
        limited(text)
    }

    fn number(&mut self) -> Token {
        let number = match self.rest {
            [b'0', b'x', ..] => {
                let (prefix, rest) = self.rest.split_at_checked(2).unwrap_or((self.rest, &[]));
                self.rest = rest;
                [prefix, self.take_while(|byte| byte.is_ascii_hexdigit())].concat()
            }
            _ => self.take_while(|byte| byte.is_ascii_digit()).to_owned(),
        };
        Token::Unexpected(number)
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn limited(text: Vec<u8>) -> Token {
    if text.len() > LONGEST { Token::TooLong(text) } else { Token::Name(text) }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks();
        let first = *self.rest.first()?;
        let token = match first {
            b'#' => {
                self.rest = &[];
                return None;
            }
            b'"' => {
                self.next_byte();
                self.string()
            }
            b',' => {
                self.next_byte();
                Token::Comma
            }
            b'0'..=b'9' => self.number(),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'\\' => self.name(),
            // A minus sign is a name when it is alone, and else the sign of what follows.
            b'-' if self.rest.get(1).is_none_or(|next| matches!(next, b' ' | b'\t')) => {
                self.next_byte();
                Token::Name(b"-".to_vec())
            }
            b'-' | b'~' => {
                self.next_byte();
                match self.rest.first() {
                    Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => match self.name() {
                        Token::Name(name) => Token::Name([&[first], name.as_slice()].concat()),
                        token => token,
                    },
                    Some(b'0'..=b'9') => self.number(),
                    _ => Token::Unexpected(vec![first]),
                }
            }
            _ => {
                self.next_byte();
                Token::Unexpected(vec![first])
            }
        };
        if matches!(token, Token::OpenQuote(_) | Token::TooLong(_)) {
            self.rest = &[];
        }
        Some(token)
    }
}
