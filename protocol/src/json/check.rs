//! Checks a JSON object against the grammar and the limits of properties in one pass, without allocating a tree.

use crate::outcome::{Actual, MAX_PATH_BYTES, RejectReason, Violation, truncate};

/// Limits of one tree of properties.
#[derive(Clone, Copy, Debug)]
pub struct PropertyLimits {
    /// Members of any one object.
    pub properties: u64,
    /// Nesting; the outermost object is 1.
    pub depth: u64,
    /// Length of a name, bytes in UTF-8 after unescaping.
    pub key_bytes: u64,
}

impl From<&crate::Limits> for PropertyLimits {
    fn from(limits: &crate::Limits) -> Self {
        Self { properties: limits.properties, depth: limits.depth, key_bytes: limits.key_bytes }
    }
}

/// One container that is not closed yet.
struct Level {
    object: bool,
    /// Members seen so far, the current one included.
    members: u64,
    /// Byte range of the current member's name in the text (objects only).
    key: (usize, usize),
}

struct Checker<'a> {
    text: &'a str,
    at: usize,
    root: &'a str,
    limits: PropertyLimits,
    levels: Vec<Level>,
    deepest: u64,
    found: Option<Violation>,
    /// Index in `levels` of the object whose members are counted to complete `found`.
    counting: Option<usize>,
}

/// Checks that `text` is one JSON object within `limits`. `root` is the first part of every path, such as `props`.
///
/// # Errors
/// The first violation. Its `got` is the depth, count or length of the whole text, not of the part read so far. Text
/// that is not a JSON object is `invalid_field`, with the position as `got`.
pub fn check_object(text: &str, root: &str, limits: PropertyLimits) -> Result<(), Violation> {
    let mut checker =
        Checker { text, at: 0, root, limits, levels: Vec::new(), deepest: 0, found: None, counting: None };
    match checker.run() {
        Ok(()) => match checker.found {
            Some(mut violation) => {
                if violation.reason == RejectReason::PropertyTooDeep {
                    violation.got = Some(Actual::Number(checker.deepest as i64));
                }
                Err(violation)
            }
            None => Ok(()),
        },
        Err(()) => Err(Violation::new(RejectReason::InvalidField, root, Some(checker.position()))),
    }
}

/// Returns the length after unescaping, bytes in UTF-8, of the content of a valid string. A lone surrogate counts as
/// U+FFFD: 3 bytes.
fn unescaped_len(content: &[u8]) -> u64 {
    let (mut at, mut length, mut after_high) = (0, 0, false);
    while at < content.len() {
        let high = std::mem::take(&mut after_high);
        if content[at] != b'\\' {
            (at, length) = (at + 1, length + 1);
        } else if content[at + 1] != b'u' {
            (at, length) = (at + 2, length + 1);
        } else {
            let unit = content[at + 2..at + 6].iter().fold(0, |unit, digit| {
                // The low four bits of a letter count from 1 where its value counts from 10.
                (unit << 4) + u32::from(digit & 15) + if *digit > b'9' { 9 } else { 0 }
            });
            length += match unit {
                0..0x80 => 1,
                0x80..0x800 => 2,
                // The second half of a pair: four bytes in all, of which the first half has counted three.
                0xdc00..0xe000 if high => 1,
                _ => 3,
            };
            after_high = (0xd800..0xdc00).contains(&unit);
            at += 6;
        }
    }
    length
}

impl Checker<'_> {
    fn position(&self) -> Actual {
        let mut at = self.at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let mut shown = String::from("not a JSON object, see byte ");
        super::write_integer(&mut shown, at as i64);
        Actual::Text(shown)
    }

    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        self.byte()
    }

    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn run(&mut self) -> Result<(), ()> {
        if self.peek() != b'{' {
            return Err(());
        }
        self.open(true);
        while !self.levels.is_empty() {
            self.member()?;
        }
        self.peek();
        if self.at == self.text.len() { Ok(()) } else { Err(()) }
    }

    /// Reads one member of the innermost container, or its end.
    fn member(&mut self) -> Result<(), ()> {
        let c = self.peek();
        let Some(level) = self.levels.last() else {
            return Err(());
        };
        let (object, first) = (level.object, level.members == 0);
        if c == if object { b'}' } else { b']' } {
            self.at += 1;
            self.close();
            return Ok(());
        }
        if !first {
            if c != b',' {
                return Err(());
            }
            self.at += 1;
            self.peek();
        }
        if object {
            let key = self.string()?;
            if self.peek() != b':' {
                return Err(());
            }
            self.at += 1;
            self.check_member(key);
        } else if let Some(level) = self.levels.last_mut() {
            level.members += 1;
        }
        self.value()
    }

    fn check_member(&mut self, key: (usize, usize)) {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        level.members += 1;
        level.key = key;
        let members = level.members;
        let mut length = (key.1 - key.0) as u64;
        if length > self.limits.key_bytes {
            // Unescaping never makes a name longer, so a short raw name needs no exact length.
            length = unescaped_len(&self.text.as_bytes()[key.0..key.1]);
        }
        if self.counting == Some(depth - 1) {
            if let Some(violation) = &mut self.found {
                violation.got = Some(Actual::Number(members as i64));
            }
        } else if self.found.is_some() {
        } else if length > self.limits.key_bytes {
            let path = self.path(depth);
            self.found =
                Some(Violation::limit_exceeded(RejectReason::KeyTooLong, &path, self.limits.key_bytes, length));
        } else if members > self.limits.properties {
            let path = self.path(depth - 1);
            self.found = Some(Violation::limit_exceeded(
                RejectReason::TooManyProperties,
                &path,
                self.limits.properties,
                members,
            ));
            self.counting = Some(depth - 1);
        }
    }

    fn open(&mut self, object: bool) {
        self.at += 1;
        let depth = self.levels.len() as u64 + 1;
        self.deepest = self.deepest.max(depth);
        if depth > self.limits.depth && self.found.is_none() {
            let path = self.path(self.levels.len());
            self.found =
                Some(Violation::limit_exceeded(RejectReason::PropertyTooDeep, &path, self.limits.depth, depth));
        }
        self.levels.push(Level { object, members: 0, key: (0, 0) });
    }

    fn close(&mut self) {
        self.levels.pop();
        if self.counting == Some(self.levels.len()) {
            self.counting = None;
        }
    }

    fn value(&mut self) -> Result<(), ()> {
        match self.peek() {
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'"' => {
                self.string()?;
            }
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => self.number()?,
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), ()> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(());
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ()> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), ()> {
        if self.byte() == b'-' {
            self.at += 1;
        }
        if self.byte() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Reads a string and returns the byte range of its content.
    fn string(&mut self) -> Result<(usize, usize), ()> {
        if self.byte() != b'"' {
            return Err(());
        }
        self.at += 1;
        let start = self.at;
        loop {
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok((start, self.at - 1));
                }
                b'\\' => {
                    self.at += 1;
                    self.escape()?;
                }
                0x20.. => self.at += 1,
                _ => return Err(()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ()> {
        let c = self.byte();
        self.at += 1;
        match c {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    if !self.byte().is_ascii_hexdigit() {
                        return Err(());
                    }
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(()),
        }
    }

    /// Returns the names from the root down through `depth` levels, joined by dots; array elements by their index.
    fn path(&self, depth: usize) -> String {
        let mut path = String::from(self.root);
        for level in &self.levels[..depth] {
            path.push('.');
            if level.object {
                path.push_str(&self.text[level.key.0..level.key.1]);
            } else {
                super::write_integer(&mut path, level.members as i64 - 1);
            }
            if path.len() > MAX_PATH_BYTES {
                return truncate(&path, MAX_PATH_BYTES).to_owned();
            }
        }
        path
    }
}
