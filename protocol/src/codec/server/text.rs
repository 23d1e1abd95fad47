//! Lenient deserializer for texts of the wire.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A text that is borrowed from the body unless it contains escapes.
///
/// A lone surrogate becomes U+FFFD: JavaScript leaves one where it cuts a text inside a surrogate pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireText<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for WireText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Reads the raw text, because serde_json refuses a string with a lone surrogate.
        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        let content = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match content {
            Some(content) if !content.contains('\\') => Ok(Self(Cow::Borrowed(content))),
            Some(_) => Ok(Self(Cow::Owned(unescape(raw).map_err(plain)?))),
            None => Err(plain(match serde_json::from_str::<String>(raw) {
                Err(error) => error,
                Ok(_) => serde::de::Error::custom("invalid type, expected a string"),
            })),
        }
    }
}

/// Removes the position from the error, because it counts from the start of the text and not of the body.
fn plain<E: serde::de::Error>(error: serde_json::Error) -> E {
    E::custom(error.to_string().split(" at line ").next().unwrap_or_default())
}

/// Returns the content of a JSON string. serde_json passes an invalid string on as bytes; a lone surrogate is then
/// encoded like a character in three bytes: ED, A0 to BF, and one more.
fn unescape(raw: &str) -> Result<String, serde_json::Error> {
    struct Bytes;
    impl serde::de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string")
        }
        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
    let bytes = serde_json::Deserializer::from_str(raw).deserialize_bytes(Bytes)?;
    String::from_utf8(bytes).or_else(|error| {
        let mut bytes = error.into_bytes();
        for at in 0..bytes.len().saturating_sub(2) {
            if bytes[at] == 0xed && bytes[at + 1] >= 0xa0 {
                bytes[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
            }
        }
        String::from_utf8(bytes).map_err(serde::de::Error::custom)
    })
}

impl std::ops::Deref for WireText<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}
