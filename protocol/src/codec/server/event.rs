//! Reads one event of a batch.

use serde_json::value::RawValue;

use super::shape::{Millis, Reading, object};
use super::text::Text;
use crate::limits::MAX_SAFE_INTEGER;
use crate::outcome::{Got, RejectReason, Violation};
use crate::{Id, Theme};

/// One event, read from its JSON text. Texts are borrowed where possible.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Its identity.
    pub id: Id,
    /// Its number within the install, from 1.
    pub seq: u64,
    /// Its theme.
    pub theme: Theme,
    /// Its code as sent; not yet checked.
    pub code: Text<'a>,
    /// Device clock, milliseconds since the epoch; perhaps absurd.
    pub ts: i64,
    /// Monotonic device clock, milliseconds.
    pub mono: Option<u64>,
    /// Which run of the monotonic clock.
    pub boot: Text<'a>,
    /// The true time, if the sender knows it; not yet checked.
    pub true_ts: Option<i64>,
    /// The user, empty if none.
    pub user_id: Text<'a>,
    /// The session.
    pub session: Option<Session<'a>>,
    /// The page.
    pub page: Option<Page<'a>>,
    /// The properties as sent; not yet checked.
    pub props: Option<&'a RawValue>,
}

object! {
    /// Where in a session an event stands.
    #[derive(Clone, Debug)]
    pub struct Session<'a> {
        /// The session's identity, any text.
        #[serde(borrow)]
        pub id: Option<Text<'a>>,
        /// The session's number within the install.
        pub index: Option<u64>,
        /// The event's number within the session.
        pub event: Option<u64>,
    }
}

object! {
    #[derive(Clone, Debug)]
    struct WirePage<'a> {
        #[serde(borrow)]
        path: Option<Text<'a>>,
        #[serde(borrow)]
        title: Option<Text<'a>>,
        #[serde(borrow)]
        referrer: Option<Text<'a>>,
        enter_ts: Option<Millis>,
    }
}

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Page<'a> {
    /// Path without query.
    pub path: Option<Text<'a>>,
    /// Title.
    pub title: Option<Text<'a>>,
    /// Where it was reached from.
    pub referrer: Option<Text<'a>>,
    /// When it was entered, device clock, milliseconds since the epoch; perhaps absurd.
    pub enter_ts: Option<i64>,
}

object! {
    struct WireEvent<'a> {
        #[serde(borrow)]
        id: Option<Text<'a>>,
        seq: Option<u64>,
        #[serde(borrow)]
        theme: Option<Text<'a>>,
        #[serde(borrow)]
        code: Option<Text<'a>>,
        ts: Option<Millis>,
        mono: Option<Reading>,
        #[serde(borrow)]
        boot: Option<Text<'a>>,
        true_ts: Option<Millis>,
        #[serde(borrow)]
        user_id: Option<Text<'a>>,
        #[serde(borrow)]
        session: Option<Session<'a>>,
        #[serde(borrow)]
        page: Option<WirePage<'a>>,
        #[serde(borrow)]
        props: Option<&'a RawValue>,
    }
}

object! {
    struct OnlyId<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
}

impl<'a> Event<'a> {
    /// Reads one event: its fields' presence and types. Ranges and limits are the pipeline's to check.
    ///
    /// # Errors
    /// `malformed`, `missing_field`, `invalid_field` or `unknown_theme`, with the ID if one could be read.
    pub fn decode(raw: &'a RawValue) -> Result<Self, (Option<Id>, Violation)> {
        let wire: WireEvent<'a> = serde_json::from_str(raw.get()).map_err(|error| explain(raw.get(), &error))?;
        let known = wire.id.as_ref().and_then(|text| Id::parse(text));
        let fail = |violation| (known, violation);
        let missing = |field| fail(Violation::new(RejectReason::MissingField, field, None));
        let id = wire.id.ok_or_else(|| missing("id"))?;
        let id = known.ok_or_else(|| fail(Violation::new(RejectReason::InvalidField, "id", Some(Got::text(&id)))))?;
        let seq = wire.seq.ok_or_else(|| missing("seq"))?;
        let limit = if seq == 0 { 1 } else { MAX_SAFE_INTEGER };
        if !(1..=MAX_SAFE_INTEGER).contains(&seq) {
            return Err(fail(Violation::over(RejectReason::InvalidField, "seq", limit, seq)));
        }
        let theme = wire.theme.ok_or_else(|| missing("theme"))?;
        let code = wire.code.ok_or_else(|| missing("code"))?;
        let ts = wire.ts.ok_or_else(|| missing("ts"))?;
        let unknown = || fail(Violation::new(RejectReason::UnknownTheme, "theme", Some(Got::text(&theme))));
        Ok(Self {
            id,
            seq,
            theme: Theme::parse(&theme).ok_or_else(unknown)?,
            code,
            ts: ts.0,
            mono: wire.mono.and_then(|reading| reading.0),
            boot: wire.boot.unwrap_or_default(),
            true_ts: wire.true_ts.map(|time| time.0),
            user_id: wire.user_id.unwrap_or_default(),
            session: wire.session,
            page: wire.page.map(|page| Page {
                path: page.path,
                title: page.title,
                referrer: page.referrer,
                enter_ts: page.enter_ts.map(|time| time.0),
            }),
            props: super::batch::non_null(wire.props),
        })
    }

    /// The identity of an event that is too large to be read as a whole, if it has one.
    #[must_use]
    pub fn only_id(raw: &RawValue) -> Option<Id> {
        let only: OnlyId<'_> = serde_json::from_str(raw.get()).ok()?;
        Id::parse(only.id?.get().trim_matches('"'))
    }
}

/// Reads the event once more, slowly, to name the field.
fn explain(text: &str, error: &serde_json::Error) -> (Option<Id>, Violation) {
    let id = serde_json::from_str::<OnlyId<'_>>(text).ok().and_then(|only| only.id);
    let id = id.and_then(|raw| Id::parse(raw.get().trim_matches('"')));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let path = match serde_path_to_error::deserialize::<_, WireEvent<'_>>(&mut deserializer) {
        Err(error) if error.path().iter().len() > 0 => error.path().to_string(),
        _ => String::new(),
    };
    let message = error.to_string();
    let got = Some(Got::text(message.split(" at line ").next().unwrap_or_default()));
    if path.is_empty() || path == "." {
        (id, Violation::new(RejectReason::Malformed, "", got))
    } else {
        (id, Violation::new(RejectReason::InvalidField, &path, got))
    }
}
