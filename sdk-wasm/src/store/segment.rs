//! Encoding of a segment: the records of one commit as a text under one key.
//!
//! `CHECKSUM LENGTH LAST|RECORDS`: the CRC-32 of the records in hexadecimal, their length in bytes, and the number of the
//! last segment of the same commit. A record is `KIND NUMBER = LENGTH : VALUE` or `KIND NUMBER ~` (a
//! deletion) without the spaces, for example `e12=5:{"a"}`. A segment that was cut or changed does not read back.

use subway_sdk_core::Key;
use subway_sdk_core::protocol::json::write_unsigned;

use crate::crc32::crc32;

/// Most bytes of a segment's header: checksum, two numbers, three separators.
pub(super) const HEAD_BYTES: usize = 8 + 1 + 10 + 1 + 10 + 1;

/// Appends one record; `None` is a deletion.
pub(super) fn push_record(out: &mut String, key: Key, value: Option<&str>) {
    let (kind, number) = key.parts();
    out.push(kind);
    write_unsigned(out, number);
    match value {
        Some(value) => {
            out.push('=');
            write_unsigned(out, value.len() as u64);
            out.push(':');
            out.push_str(value);
        }
        None => out.push('~'),
    }
}

/// Encodes a segment; its commit ends with segment number `last`.
pub(super) fn encode(records: &str, last: u32) -> String {
    let mut out = String::with_capacity(records.len() + HEAD_BYTES);
    let checksum = crc32(records.as_bytes());
    for nibble in (0..8).rev() {
        let digit = (checksum >> (nibble * 4)) & 15;
        out.push(char::from(b"0123456789abcdef"[digit as usize]));
    }
    out.push(' ');
    write_unsigned(&mut out, records.len() as u64);
    out.push(' ');
    write_unsigned(&mut out, u64::from(last));
    out.push('|');
    out.push_str(records);
    out
}

/// Verifies a segment. Returns the number of its commit's last one, or `None` if it is damaged.
pub(super) fn verify(text: &str) -> Option<u32> {
    let (head, _) = text.split_at_checked(text.find('|')?)?;
    let body = records(text).rest;
    let mut fields = head.split(' ');
    let (checksum, length, last) = (fields.next()?, fields.next()?, fields.next()?);
    if take_number(length)?.0 != body.len() as u64 || u32::from_str_radix(checksum, 16).ok()? != crc32(body.as_bytes())
    {
        return None;
    }
    u32::try_from(take_number(last)?.0).ok()
}

/// Returns the records of a verified segment; none for an empty text.
pub(super) fn records(text: &str) -> Records<'_> {
    Records { rest: text.find('|').and_then(|bar| text.get(bar + 1..)).unwrap_or("") }
}

/// Iterator over the records of one segment, in the order of writing.
pub(super) struct Records<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Records<'a> {
    type Item = (Key, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        let kind = self.rest.chars().next()?;
        let (number, rest) = take_number(self.rest.get(kind.len_utf8()..)?)?;
        let key = Key::from_parts(kind, number)?;
        let mut value = None;
        if let Some(sized) = rest.strip_prefix('=') {
            let (length, rest) = take_number(sized)?;
            let (text, rest) = rest.get(1..)?.split_at_checked(length as usize)?;
            value = Some(text);
            self.rest = rest;
        } else {
            self.rest = rest.get(1..)?;
        }
        Some((key, value))
    }
}

/// Parses the decimal number at the start of the text. Returns it with the rest.
pub(crate) fn take_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > 19 {
        return None;
    }
    let number = text.as_bytes()[..digits].iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
    Some((number, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> String {
        let mut records = String::new();
        push_record(&mut records, Key::State, Some("{\"京\":\"东 = ~ | 5:\"}"));
        push_record(&mut records, Key::Event(12_345_678_901), Some(""));
        push_record(&mut records, Key::Batch(7), None);
        encode(&records, 42)
    }

    #[test]
    fn a_segment_comes_back_as_it_was_written() {
        let text = sample();
        assert_eq!(verify(&text), Some(42));
        let read: Vec<_> = records(&text).collect();
        assert_eq!(
            read,
            [
                (Key::State, Some("{\"京\":\"东 = ~ | 5:\"}")),
                (Key::Event(12_345_678_901), Some("")),
                (Key::Batch(7), None)
            ]
        );
    }

    #[test]
    fn a_segment_that_was_cut_or_changed_is_refused() {
        let text = sample();
        for cut in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            assert!(verify(&text[..cut]).is_none(), "cut at {cut}");
        }
        let records_at = text.find('|').unwrap() + 1;
        for at in (records_at..text.len()).filter(|at| text.is_char_boundary(*at) && text.is_char_boundary(at + 1)) {
            let changed = format!("{}\u{7f}{}", &text[..at], &text[at + 1..]);
            assert!(verify(&changed).is_none(), "changed at {at}");
        }
        assert!(verify(&format!("{text} ")).is_none());
    }

    #[test]
    fn numbers_are_written_as_std_would() {
        for number in [0, 7, 10, 99, 1_000_000, u64::MAX] {
            let mut text = String::new();
            write_unsigned(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }
}
