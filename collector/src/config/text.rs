//! Strings of the configuration: replaces `${NAME}`, and keeps secrets out of logs.

use std::fmt;

use serde::{Deserialize, Deserializer, de::Error};
use toml::Spanned;

use super::{ConfigError, Source};

/// A string in which every `${NAME}` has been replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(String);

impl std::ops::Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not `String::deserialize`: its error would show a token that was written without quotes.
        let toml::Value::String(text) = toml::Value::deserialize(deserializer)? else {
            return Err(D::Error::custom("must be a string in quotes"));
        };
        expand(&text, &|name| std::env::var(name).ok()).map(Text).map_err(D::Error::custom)
    }
}

/// Replaces every `${NAME}` by what `lookup` returns for it. A `$` without a brace stays.
pub(super) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("`${` without a closing `}`")?;
        out.push_str(before);
        out.push_str(
            &lookup(name).ok_or_else(|| format!("the environment variable {name} is not set (or is not UTF-8)"))?,
        );
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Token or key that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Text::deserialize(deserializer)?.0))
    }
}

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// Returns the value.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Validates a token: it must be possible in a header.
    pub(super) fn token(source: &Source<'_>, key: &str, token: Spanned<Text>) -> Result<Self, ConfigError> {
        if token.get_ref().is_empty() || !token.get_ref().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(source.error(token.span(), key, "must be one or more visible ASCII characters without spaces"));
        }
        Ok(Self(token.into_inner().0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_braces_are_replaced_and_nothing_else() {
        let lookup = |name: &str| (name == "A").then(|| "${B}$".to_owned());
        assert_eq!(expand("x${A}y$z$${A}", &lookup).unwrap(), "x${B}$y$z$${B}$");
        assert!(expand("${B}", &lookup).unwrap_err().contains('B'));
        assert!(expand("a${A", &lookup).is_err());
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hush".into())), "Secret(..)");
    }
}
