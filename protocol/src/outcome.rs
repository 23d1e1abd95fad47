//! Outcomes of an event on the collector: stored, duplicate, or rejected with a reason. Both sides use this vocabulary.

use std::fmt;

use crate::integer::write_integer;

crate::named_enum! {
    /// Reason for the rejection of one event of a batch. The wire form is the snake_case name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum RejectReason {
        /// The event is not a JSON object, or names a field twice.
        Malformed = "malformed",
        /// A required field is absent; `field` names it.
        MissingField = "missing_field",
        /// A field has the wrong type or form; `field` names it, `got` shows what came.
        InvalidField = "invalid_field",
        /// `theme` is none of the themes.
        UnknownTheme = "unknown_theme",
        /// `code` is empty, longer than 128 bytes or has a control character.
        InvalidCode = "invalid_code",
        /// `true_ts` is later than arrival by more than `future_ms`, or older than `past_days`.
        TimeOutOfRange = "time_out_of_range",
        /// The event's JSON text exceeds `event_bytes`.
        EventTooLarge = "event_too_large",
        /// A text outside the properties exceeds `text_bytes`.
        TextTooLong = "text_too_long",
        /// An object of the properties has more members than `properties`.
        TooManyProperties = "too_many_properties",
        /// The properties nest deeper than `depth`.
        PropertyTooDeep = "property_too_deep",
        /// A property's name exceeds `key_bytes`.
        KeyTooLong = "key_too_long",
    }
}

/// Value that was received instead of an allowed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actual {
    /// A size or a count.
    Number(i64),
    /// A text, truncated to [`Actual::TEXT_BYTES`].
    Text(String),
}

impl Actual {
    /// Length of the quoted text, bytes: enough to recognise it, too little to leak data.
    pub const TEXT_BYTES: usize = 64;

    /// Quotes the first [`Actual::TEXT_BYTES`] of `text`, without splitting a character.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Actual::Text(truncate(text, Self::TEXT_BYTES).to_owned())
    }
}

/// Length of a field's path in a violation or a problem, bytes: enough to find the place in an event. Longer paths are cut
/// by [`truncate`], because a sender chooses the names in them.
pub const MAX_PATH_BYTES: usize = 256;

/// Returns the longest prefix of `text` that has at most `bytes` bytes and does not split a character.
#[must_use]
pub fn truncate(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A rule broken by an event: reason, field, limit and the value that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Rule that is broken.
    pub reason: RejectReason,
    /// Field, as a path: `ts`, `page.path`, `props.cart.items.0.name`. Empty for the event as a whole.
    pub field: String,
    /// Limit, if the rule has one.
    pub limit: Option<u64>,
    /// Value that was received, if it can be shown.
    pub got: Option<Actual>,
}

impl Violation {
    /// Creates a violation of a rule without a limit.
    #[must_use]
    pub fn new(reason: RejectReason, field: &str, got: Option<Actual>) -> Self {
        Self { reason, field: field.to_owned(), limit: None, got }
    }

    /// Creates a violation of a rule whose `limit` is exceeded by the size or count `got`.
    #[must_use]
    pub fn limit_exceeded(reason: RejectReason, field: &str, limit: u64, got: u64) -> Self {
        Self {
            reason,
            field: field.to_owned(),
            limit: Some(limit),
            got: Some(Actual::Number(i64::try_from(got).unwrap_or(i64::MAX))),
        }
    }
}

/// Writes one English sentence without a full stop: `property_too_deep at props.a, limit 8, got 12`.
///
/// Numbers do not go through `write!`, because the formatting machinery of std is too large for a mini-program.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::from(self.reason.as_str());
        if !self.field.is_empty() {
            out.push_str(" at ");
            out.push_str(&self.field);
        }
        if let Some(limit) = self.limit {
            out.push_str(", limit ");
            write_integer(&mut out, limit as i64);
        }
        match &self.got {
            Some(Actual::Number(n)) => {
                out.push_str(", got ");
                write_integer(&mut out, *n);
            }
            Some(Actual::Text(text)) => {
                out.push_str(", got ");
                out.push_str(text);
            }
            None => {}
        }
        f.write_str(&out)
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_from_its_own_name() {
        for reason in RejectReason::ALL {
            assert_eq!(RejectReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(RejectReason::parse("bad"), None);
    }

    #[test]
    fn a_violation_names_field_limit_and_value() {
        let violation = Violation::limit_exceeded(RejectReason::PropertyTooDeep, "props.a.b", 8, 12);
        assert_eq!(violation.to_string(), "property_too_deep at props.a.b, limit 8, got 12");
    }

    #[test]
    fn truncation_never_splits_a_character() {
        assert_eq!(truncate("ab页", 4), "ab");
        assert_eq!(truncate("ab页", 5), "ab页");
    }
}
