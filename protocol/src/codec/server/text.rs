//! Texts of the wire, read leniently.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A text that is borrowed from the body unless it contains escapes. Half of a surrogate pair, which JavaScript leaves
/// where it cuts a text in two, is read as U+FFFD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The raw text rather than a string: strings are refused for half of a pair.
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

/// The error without its place, which counts from the beginning of the text and not of the body.
fn plain<E: serde::de::Error>(error: serde_json::Error) -> E {
    E::custom(error.to_string().split(" at line ").next().unwrap_or_default())
}

/// The content of a JSON string. serde_json gives what is not a valid string as bytes, half of a pair in the three that
/// UTF-8 would have for it if it were a character: ED, A0 to BF, and one more.
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

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}
