//! How an event can end on the collector: stored, duplicate, or rejected with a reason. One vocabulary for both sides.

use crate::integer::write_integer;

/// Why one event of a batch was rejected. The wire form is the snake_case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// The event is not a JSON object, or names a field twice.
    Malformed,
    /// A required field is absent; `field` names it.
    MissingField,
    /// A field has the wrong type or form; `field` names it, `got` shows what came.
    InvalidField,
    /// `theme` is none of the themes.
    UnknownTheme,
    /// `code` is empty, longer than 128 bytes or has a control character.
    InvalidCode,
    /// `true_ts` is later than arrival by more than `future_ms`, or older than `past_days`.
    TimeOutOfRange,
    /// The event's JSON text exceeds `event_bytes`.
    EventTooLarge,
    /// A text outside the properties exceeds `text_bytes`.
    TextTooLong,
    /// An object of the properties has more members than `properties`.
    TooManyProperties,
    /// The properties nest deeper than `depth`.
    PropertyTooDeep,
    /// A property's name exceeds `key_bytes`.
    KeyTooLong,
}

impl RejectReason {
    /// All reasons, in the order of the specification.
    pub const ALL: [RejectReason; 11] = [
        RejectReason::Malformed,
        RejectReason::MissingField,
        RejectReason::InvalidField,
        RejectReason::UnknownTheme,
        RejectReason::InvalidCode,
        RejectReason::TimeOutOfRange,
        RejectReason::EventTooLarge,
        RejectReason::TextTooLong,
        RejectReason::TooManyProperties,
        RejectReason::PropertyTooDeep,
        RejectReason::KeyTooLong,
    ];

    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RejectReason::Malformed => "malformed",
            RejectReason::MissingField => "missing_field",
            RejectReason::InvalidField => "invalid_field",
            RejectReason::UnknownTheme => "unknown_theme",
            RejectReason::InvalidCode => "invalid_code",
            RejectReason::TimeOutOfRange => "time_out_of_range",
            RejectReason::EventTooLarge => "event_too_large",
            RejectReason::TextTooLong => "text_too_long",
            RejectReason::TooManyProperties => "too_many_properties",
            RejectReason::PropertyTooDeep => "property_too_deep",
            RejectReason::KeyTooLong => "key_too_long",
        }
    }

    /// The reason with this wire form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// What came instead of what was allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// A size or a count.
    Number(i64),
    /// A text, cut to [`Got::TEXT_BYTES`].
    Text(String),
}

impl Got {
    /// How much of an offending text is shown, bytes: enough to recognise it, too little to carry data out.
    pub const TEXT_BYTES: usize = 64;

    /// The first [`Got::TEXT_BYTES`] of `text`, cut between characters.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Got::Text(truncate(text, Self::TEXT_BYTES).to_owned())
    }
}

/// The longest beginning of `text` that has at most `bytes` bytes and ends between characters.
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

/// One event breaks one rule: which, where, the limit and what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub reason: RejectReason,
    /// The field, as a path: `ts`, `page.path`, `props.cart.items.0.name`. Empty if it is the event as a whole.
    pub field: String,
    /// The limit, where the rule is one.
    pub limit: Option<u64>,
    /// What came, where it can be shown.
    pub got: Option<Got>,
}

impl Violation {
    /// A rule without a number is broken at `field`.
    #[must_use]
    pub fn new(reason: RejectReason, field: &str, got: Option<Got>) -> Self {
        Self { reason, field: field.to_owned(), limit: None, got }
    }

    /// The size or count `got` at `field` exceeds `limit`.
    #[must_use]
    pub fn over(reason: RejectReason, field: &str, limit: u64, got: u64) -> Self {
        Self {
            reason,
            field: field.to_owned(),
            limit: Some(limit),
            got: Some(Got::Number(i64::try_from(got).unwrap_or(i64::MAX))),
        }
    }
}

impl Violation {
    /// One English sentence without a full stop, for a log or an error: `property_too_deep at props.a, limit 8, got 12`.
    #[must_use]
    pub fn describe(&self) -> String {
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
            Some(Got::Number(n)) => {
                out.push_str(", got ");
                write_integer(&mut out, *n);
            }
            Some(Got::Text(text)) => {
                out.push_str(", got ");
                out.push_str(text);
            }
            None => {}
        }
        out
    }
}

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
    fn a_violation_names_field_limit_and_what_came() {
        let violation = Violation::over(RejectReason::PropertyTooDeep, "props.a.b", 8, 12);
        assert_eq!(violation.describe(), "property_too_deep at props.a.b, limit 8, got 12");
    }

    #[test]
    fn truncation_never_splits_a_character() {
        assert_eq!(truncate("ab页", 4), "ab");
        assert_eq!(truncate("ab页", 5), "ab页");
    }
}
