//! Identifiers: 128-bit UUIDs (RFC 9562), made as version 7 from a time and random bytes that the caller brings.

use std::fmt;

/// A UUID. Ordered by its bytes, which for version 7 is the order of making, to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 16]);

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Where the hyphens stand in the 36-character text form.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl Id {
    /// A version 7 UUID (RFC 9562 section 5.7).
    ///
    /// `millis`: milliseconds since the Unix epoch, of which the low 48 bits are kept; a negative time counts as 0.
    /// `random`: ten random bytes, of which 74 bits are kept.
    #[must_use]
    pub fn v7(millis: i64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        let millis = millis.max(0).to_be_bytes();
        bytes[..6].copy_from_slice(&millis[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// Reads the text form: 32 hexadecimal digits of either case, with hyphens after the 8th, 12th, 16th and 20th.
    /// Any version is accepted. `None` if the text has another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return None;
        }
        let mut bytes = [0u8; 16];
        let mut digits = 0;
        for (at, &c) in text.iter().enumerate() {
            if HYPHENS.contains(&at) {
                if c != b'-' {
                    return None;
                }
                continue;
            }
            let digit = match c {
                b'0'..=b'9' => c - b'0',
                b'a'..=b'f' => c - b'a' + 10,
                b'A'..=b'F' => c - b'A' + 10,
                _ => return None,
            };
            bytes[digits / 2] = (bytes[digits / 2] << 4) | digit;
            digits += 1;
        }
        Some(Self(bytes))
    }

    /// The 16 bytes, most significant first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The identifier with these 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The version digit: 7 for those made by the SDK.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.0[6] >> 4
    }

    /// Appends the 36-character text form in lower case.
    pub fn write(&self, out: &mut String) {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                out.push('-');
            }
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }

    /// The 36-character text form in lower case.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(36);
        self.write(&mut out);
        out
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_9562_comes_out() {
        // RFC 9562 appendix A.6: 2022-02-22T19:22:22Z, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
        let id = Id::v7(0x017F_22E2_79B0, [0x0C, 0xC3, 0x18, 0xC4, 0xDC, 0x0C, 0x0C, 0x07, 0x39, 0x8F]);
        assert_eq!(id.text(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert_eq!(id.version(), 7);
    }

    #[test]
    fn text_comes_back_whatever_its_case() {
        let id = Id::v7(1_431_835_512_000, [0xff; 10]);
        assert_eq!(Id::parse(&id.text()), Some(id));
        assert_eq!(Id::parse(&id.text().to_uppercase()), Some(id));
    }

    #[test]
    fn other_text_is_not_an_id() {
        for text in [
            "",
            "0",
            "017f22e279b07cc398c4dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
            "017f22e2079b0-7cc3-98c4-dc0c0c07398",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
