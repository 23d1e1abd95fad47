//! The user's consent, applied before anything is queued.

/// The user's decision about being measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Not asked yet: events wait in memory, nothing is stored or sent.
    Unknown,
    /// Events are queued and sent.
    Granted,
    /// Events are dropped; stored data has been wiped.
    Denied,
}

impl Consent {
    /// Returns the form used in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Consent::Unknown => "unknown",
            Consent::Granted => "granted",
            Consent::Denied => "denied",
        }
    }

    /// Returns the decision with this form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Consent::Unknown, Consent::Granted, Consent::Denied].into_iter().find(|consent| consent.as_str() == text)
    }
}
