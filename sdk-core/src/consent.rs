//! The user's decision, applied before anything is queued.

/// What the user has decided about being measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Not asked yet: events are held in memory, nothing is stored or sent.
    Unknown,
    /// Events are queued and sent.
    Granted,
    /// Events are dropped; what was stored has been wiped.
    Denied,
}

impl Consent {
    /// The form in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Consent::Unknown => "unknown",
            Consent::Granted => "granted",
            Consent::Denied => "denied",
        }
    }

    /// The decision with this form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Consent::Unknown, Consent::Granted, Consent::Denied].into_iter().find(|consent| consent.as_str() == text)
    }
}
