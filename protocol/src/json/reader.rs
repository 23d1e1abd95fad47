//! Pull parser: the caller states which value comes next, and only values that it asks for are allocated.

/// The text does not have the expected form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Offset of the error, bytes from the beginning of the text.
    pub at: usize,
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::from("not the expected JSON, see byte ");
        super::write_unsigned(&mut text, self.at as u64);
        f.write_str(&text)
    }
}

impl std::error::Error for JsonError {}

/// Reads one JSON text from its beginning to its end. Never recurses, so nesting cannot exhaust the stack.
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Creates a reader at the beginning of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn error<T>(&self) -> Result<T, JsonError> {
        Err(JsonError { at: self.at })
    }

    /// Returns the next byte that is not white space, without consuming it; 0 at the end.
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(0)
    }

    fn expect_byte(&mut self, wanted: u8) -> Result<(), JsonError> {
        if self.peek() == wanted {
            self.at += 1;
            Ok(())
        } else {
            self.error()
        }
    }

    /// Reads an object. Calls `field` with each name; it must read the value.
    ///
    /// # Errors
    /// If the text is not an object, or `field` returns an error.
    pub fn object(&mut self, mut field: impl FnMut(&str, &mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.read_members(&mut field)
    }

    /// Not generic, so that the module has one copy of the loop: the size of a mini-program is limited.
    fn read_members(
        &mut self,
        field: &mut dyn FnMut(&str, &mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.expect_byte(b'{')?;
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.expect_byte(b':')?;
            field(&name, self)?;
            if self.comma_or(b'}')? {
                return Ok(());
            }
        }
    }

    /// Reads an array. Calls `item` for each element; it must read the element.
    ///
    /// # Errors
    /// If the text is not an array, or `item` returns an error.
    pub fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.read_items(&mut item)
    }

    fn read_items(&mut self, item: &mut dyn FnMut(&mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.expect_byte(b'[')?;
        if self.peek() == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            if self.comma_or(b']')? {
                return Ok(());
            }
        }
    }

    /// Consumes a comma (false) or the closing bracket (true).
    fn comma_or(&mut self, close: u8) -> Result<bool, JsonError> {
        let next = self.peek();
        if next == b',' || next == close {
            self.at += 1;
            return Ok(next == close);
        }
        self.error()
    }

    /// Reads a string and unescapes it. A lone surrogate becomes U+FFFD.
    ///
    /// # Errors
    /// If the next value is not a string.
    pub fn string(&mut self) -> Result<String, JsonError> {
        self.expect_byte(b'"')?;
        let mut out = String::new();
        let mut plain = self.at;
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    out.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    out.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    let c = self.escape()?;
                    out.push(c);
                    plain = self.at;
                }
                Some(0x20..) => self.at += 1,
                _ => return self.error(),
            }
        }
    }

    /// Reads the escape sequence after a backslash.
    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(&c) = self.text.as_bytes().get(self.at) else {
            return self.error();
        };
        self.at += 1;
        Ok(match c {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                if (0xD800..0xDC00).contains(&high) && self.text[self.at..].starts_with("\\u") {
                    let back = self.at;
                    self.at += 2;
                    let low = self.hex4()?;
                    if (0xDC00..0xE000).contains(&low) {
                        let point = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                        return Ok(char::from_u32(point).unwrap_or('\u{FFFD}'));
                    }
                    self.at = back;
                }
                char::from_u32(high).unwrap_or('\u{FFFD}')
            }
            _ => return self.error(),
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.text.as_bytes().get(self.at).and_then(|c| char::from(*c).to_digit(16));
            let Some(digit) = digit else {
                return self.error();
            };
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }

    /// Reads an integer. A number with a fraction or an exponent, or beyond 64 bits, is an error.
    ///
    /// # Errors
    /// If the next value is not such an integer.
    pub fn integer(&mut self) -> Result<i64, JsonError> {
        let negative = self.peek() == b'-';
        if negative {
            self.at += 1;
        }
        let start = self.at;
        let mut value: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.text.as_bytes().get(self.at) {
            let digit = i64::from(digit - b'0');
            let next =
                value.checked_mul(10).and_then(|v| if negative { v.checked_sub(digit) } else { v.checked_add(digit) });
            let Some(next) = next else {
                return self.error();
            };
            value = next;
            self.at += 1;
        }
        let more = matches!(self.text.as_bytes().get(self.at), Some(b'.' | b'e' | b'E'));
        if self.at == start || more { self.error() } else { Ok(value) }
    }

    /// Consumes one value of any kind and returns its text. Only brackets are matched; use [`super::check_object`] to
    /// check the grammar of the content.
    ///
    /// # Errors
    /// If there is no value, or it has no end.
    pub fn raw(&mut self) -> Result<&'a str, JsonError> {
        self.peek();
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut depth = 0usize;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.skip_string()?;
                    if depth == 0 {
                        break;
                    }
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
                Some(b',' | b':' | b' ' | b'\t' | b'\n' | b'\r') if depth > 0 => self.at += 1,
                Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => {
                    while let Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') = bytes.get(self.at) {
                        self.at += 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
                _ => return self.error(),
            }
        }
        Ok(&self.text[start..self.at])
    }

    /// Consumes one value of any kind, such as that of an unknown field.
    ///
    /// # Errors
    /// As [`Reader::raw`].
    pub fn skip(&mut self) -> Result<(), JsonError> {
        self.raw().map(drop)
    }

    fn skip_string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.at += 2,
                Some(0x20..) => self.at += 1,
                _ => return self.error(),
            }
        }
    }

    /// Succeeds if only white space is left.
    ///
    /// # Errors
    /// If anything else follows.
    pub fn end(&mut self) -> Result<(), JsonError> {
        if self.peek() == 0 && self.at >= self.text.len() { Ok(()) } else { self.error() }
    }
}
