//! Writes JSON by appending to a `String`.

use crate::integer::write_integer;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` as a JSON string with its quotes. Escapes only what RFC 8259 section 7 requires.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'\n' => 'n',
            b'\r' => 'r',
            b'\t' => 't',
            0..0x20 => '\0',
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push('\\');
        if short == '\0' {
            out.push_str("u00");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        } else {
            out.push(short);
        }
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Appends one JSON object, field by field. Call [`ObjectWriter::end`] to close it.
pub struct ObjectWriter<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> ObjectWriter<'a> {
    /// Opens an object at the end of `out`.
    pub fn new(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    /// Appends the name and returns the buffer, to which exactly one JSON value must be appended.
    pub fn field(&mut self, name: &str) -> &mut String {
        if self.first {
            self.first = false;
        } else {
            self.out.push(',');
        }
        write_string(self.out, name);
        self.out.push(':');
        self.out
    }

    /// Appends a string field.
    pub fn string(&mut self, name: &str, value: &str) {
        write_string(self.field(name), value);
    }

    /// Appends a string field, unless `value` is empty.
    pub fn non_empty_string(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.string(name, value);
        }
    }

    /// Appends an integer field.
    pub fn integer(&mut self, name: &str, value: i64) {
        write_integer(self.field(name), value);
    }

    /// Appends a field whose value is complete JSON text.
    pub fn raw(&mut self, name: &str, json: &str) {
        self.field(name).push_str(json);
    }

    /// Appends a field with an identifier.
    pub fn id(&mut self, name: &str, id: crate::Id) {
        let place = self.field(name);
        place.push('"');
        id.write(place);
        place.push('"');
    }

    /// Appends complete fields without surrounding braces; at least one.
    pub fn fields(&mut self, fields: &str) {
        if self.first {
            self.first = false;
        } else {
            self.out.push(',');
        }
        self.out.push_str(fields);
    }

    /// Appends a nested object, written by `body`.
    pub fn object(&mut self, name: &str, body: impl FnOnce(&mut ObjectWriter<'_>)) {
        let mut inner = ObjectWriter::new(self.field(name));
        body(&mut inner);
        inner.end();
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push('}');
    }
}
