//! Deserializers for the wire: strict about objects, lenient about device clocks.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Declares a struct that deserializes from a JSON object only. The derived implementation also accepts an array of the
/// values in field order, so every object of the wire is declared with this macro.
macro_rules! object {
    ($(#[$outer:meta])* $vis:vis struct $name:ident<$a:lifetime> $fields:tt) => {
        $(#[$outer])*
        #[derive(serde::Deserialize)]
        #[serde(remote = "Self")]
        $vis struct $name<$a> $fields

        impl<'de: $a, $a> serde::Deserialize<'de> for $name<$a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ObjectVisitor<$a>(std::marker::PhantomData<&$a ()>);
                impl<'de: $a, $a> serde::de::Visitor<'de> for ObjectVisitor<$a> {
                    type Value = $name<$a>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a JSON object")
                    }
                    fn visit_map<M: serde::de::MapAccess<'de>>(self, map: M) -> Result<$name<$a>, M::Error> {
                        // Calls the derived function, not this one: an inherent function takes precedence.
                        $name::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    }
                }
                deserializer.deserialize_map(ObjectVisitor(std::marker::PhantomData))
            }
        }
    };
}
pub(super) use object;

/// Returns the text of a JSON number. The error has no position, because it would count from the start of the value.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de str, D::Error> {
    let raw = <&'de RawValue>::deserialize(deserializer)?.get();
    if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Ok(raw);
    }
    let kind = match raw.as_bytes().first() {
        Some(b'"') => "string",
        Some(b'[') => "sequence",
        Some(b'{') => "map",
        _ => "boolean",
    };
    Err(D::Error::custom(format!("invalid type: {kind}, expected a number")))
}

/// Time of a clock that can be wrong, milliseconds since the epoch. Accepts any number: fractions are truncated, and
/// values beyond 64 bits saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Millis(pub(super) i64);

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = number(deserializer)?;
        // Beyond the range of a float is infinity, which the cast saturates.
        Ok(Self(text.parse().or_else(|_| text.parse().map(|number: f64| number as i64)).unwrap_or(0)))
    }
}

/// Reading of a monotonic clock, milliseconds. Accepts any number; `None` if it is outside the range of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MonoMillis(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for MonoMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Millis(millis) = Millis::deserialize(deserializer)?;
        Ok(Self(u64::try_from(millis).ok().filter(|millis| *millis <= crate::limits::MAX_SAFE_INTEGER)))
    }
}

/// Elements of an array: the first ones as text, and the count of all.
pub(super) struct Elements<'a> {
    pub(super) kept: Vec<&'a RawValue>,
    pub(super) count: u64,
}

/// Deserializes [`Elements`] and keeps at most this many. The rest is only counted: eight million of the smallest would
/// take 128 MB.
pub(super) struct ElementsSeed(pub(super) u64);

impl<'de> serde::de::DeserializeSeed<'de> for ElementsSeed {
    type Value = Option<Elements<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for ElementsSeed {
    type Value = Option<Elements<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Elements { kept: Vec::new(), count: 0 };
        while elements.count < self.0 {
            let Some(element) = seq.next_element()? else { return Ok(Some(elements)) };
            elements.kept.push(element);
            elements.count += 1;
        }
        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {
            elements.count += 1;
        }
        Ok(Some(elements))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_time() {
        for (text, millis) in [
            ("-1", -1),
            ("1431835512000", 1_431_835_512_000),
            ("1431835512000.75", 1_431_835_512_000),
            ("1e15", 1_000_000_000_000_000),
            ("99999999999999999999", i64::MAX),
            ("-1e999", i64::MIN),
            ("1e-999", 0),
        ] {
            assert_eq!(serde_json::from_str::<Millis>(text).unwrap(), Millis(millis), "{text}");
        }
        for text in ["\"1\"", "[1]", "{}", "true"] {
            assert!(serde_json::from_str::<Millis>(text).is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<MonoMillis>("-1").unwrap(), MonoMillis(None));
        assert_eq!(serde_json::from_str::<MonoMillis>("7.5").unwrap(), MonoMillis(Some(7)));
    }

    #[test]
    fn no_more_elements_than_asked_for_are_kept() {
        use serde::de::DeserializeSeed;
        let read = |text: &'static str, most| {
            let elements = ElementsSeed(most).deserialize(&mut serde_json::Deserializer::from_str(text)).unwrap();
            elements.map(|elements| (elements.kept.len(), elements.count))
        };
        assert_eq!(read("[1,[2],3]", 9), Some((3, 3)));
        assert_eq!(read("[1,[2],3]", 1), Some((1, 3)));
        assert_eq!(read("[]", 1), Some((0, 0)));
        assert_eq!(read("null", 1), None);
    }
}
