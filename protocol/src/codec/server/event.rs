//! Decodes one event of a batch.

use serde_json::value::RawValue;

use super::deserialize::{Millis, MonoMillis, object};
use super::text::WireText;
use crate::limits::MAX_SAFE_INTEGER;
use crate::outcome::{Actual, RejectReason, Violation};
use crate::{Id, Theme};

/// One event, decoded from its JSON text. Texts are borrowed where possible.
#[derive(Clone, Debug)]
pub struct WireEvent<'a> {
    /// Globally unique ID.
    pub id: Id,
    /// Sequence number within the install, from 1.
    pub seq: u64,
    /// Kind of event.
    pub theme: Theme,
    /// Event name as sent; not checked yet.
    pub code: WireText<'a>,
    /// Device clock, milliseconds since the epoch; not plausible in every case.
    pub ts: i64,
    /// Monotonic device clock, milliseconds.
    pub mono: Option<u64>,
    /// Run of the monotonic clock.
    pub boot: WireText<'a>,
    /// True time if the sender knows it; not checked yet.
    pub true_ts: Option<i64>,
    /// User; empty if none.
    pub user_id: WireText<'a>,
    /// Position within a session.
    pub session: Option<WireSession<'a>>,
    /// Page the event happened on.
    pub page: Option<WirePage<'a>>,
    /// Properties as sent; not checked yet.
    pub props: Option<&'a RawValue>,
}

object! {
    /// Position of an event within a session.
    #[derive(Clone, Debug)]
    pub struct WireSession<'a> {
        /// Identity of the session, any text.
        #[serde(borrow)]
        pub id: Option<WireText<'a>>,
        /// Number of the session within the install.
        pub index: Option<u64>,
        /// Number of the event within the session.
        pub event: Option<u64>,
    }
}

object! {
    #[derive(Clone, Debug)]
    struct RawPage<'a> {
        #[serde(borrow)]
        path: Option<WireText<'a>>,
        #[serde(borrow)]
        title: Option<WireText<'a>>,
        #[serde(borrow)]
        referrer: Option<WireText<'a>>,
        enter_ts: Option<Millis>,
    }
}

/// Page of the app or mini-program.
#[derive(Clone, Debug, Default)]
pub struct WirePage<'a> {
    /// Path without query.
    pub path: Option<WireText<'a>>,
    /// Title.
    pub title: Option<WireText<'a>>,
    /// Path or address it was reached from.
    pub referrer: Option<WireText<'a>>,
    /// Device clock when the page was entered, milliseconds since the epoch; not plausible in every case.
    pub enter_ts: Option<i64>,
}

object! {
    struct RawEvent<'a> {
        #[serde(borrow)]
        id: Option<WireText<'a>>,
        seq: Option<u64>,
        #[serde(borrow)]
        theme: Option<WireText<'a>>,
        #[serde(borrow)]
        code: Option<WireText<'a>>,
        ts: Option<Millis>,
        mono: Option<MonoMillis>,
        #[serde(borrow)]
        boot: Option<WireText<'a>>,
        true_ts: Option<Millis>,
        #[serde(borrow)]
        user_id: Option<WireText<'a>>,
        #[serde(borrow)]
        session: Option<WireSession<'a>>,
        #[serde(borrow)]
        page: Option<RawPage<'a>>,
        #[serde(borrow)]
        props: Option<&'a RawValue>,
    }
}

object! {
    struct RawId<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
}

impl<'a> WireEvent<'a> {
    /// Decodes one event and checks presence and types of its fields. The pipeline checks ranges and limits.
    ///
    /// # Errors
    /// `malformed`, `missing_field`, `invalid_field` or `unknown_theme`, with the ID if one could be read.
    pub fn decode(raw: &'a RawValue) -> Result<Self, (Option<Id>, Violation)> {
        let wire: RawEvent<'a> = serde_json::from_str(raw.get()).map_err(|error| explain(raw.get(), &error))?;
        let known = wire.id.as_ref().and_then(|text| Id::parse(text));
        let fail = |violation| (known, violation);
        let missing = |field| fail(Violation::new(RejectReason::MissingField, field, None));
        let id = wire.id.ok_or_else(|| missing("id"))?;
        let id =
            known.ok_or_else(|| fail(Violation::new(RejectReason::InvalidField, "id", Some(Actual::text(&id)))))?;
        let seq = wire.seq.ok_or_else(|| missing("seq"))?;
        let limit = if seq == 0 { 1 } else { MAX_SAFE_INTEGER };
        if !(1..=MAX_SAFE_INTEGER).contains(&seq) {
            return Err(fail(Violation::limit_exceeded(RejectReason::InvalidField, "seq", limit, seq)));
        }
        let theme = wire.theme.ok_or_else(|| missing("theme"))?;
        let code = wire.code.ok_or_else(|| missing("code"))?;
        let ts = wire.ts.ok_or_else(|| missing("ts"))?;
        let unknown = || fail(Violation::new(RejectReason::UnknownTheme, "theme", Some(Actual::text(&theme))));
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
            page: wire.page.map(|page| WirePage {
                path: page.path,
                title: page.title,
                referrer: page.referrer,
                enter_ts: page.enter_ts.map(|time| time.0),
            }),
            props: super::batch::non_null(wire.props),
        })
    }

    /// Decodes only the ID, for an event that is too large to be decoded as a whole.
    #[must_use]
    pub fn decode_id(raw: &RawValue) -> Option<Id> {
        let only: RawId<'_> = serde_json::from_str(raw.get()).ok()?;
        Id::parse(only.id?.get().trim_matches('"'))
    }
}

/// Decodes the event a second time with path tracking, which is slower, to name the field.
fn explain(text: &str, error: &serde_json::Error) -> (Option<Id>, Violation) {
    let id = serde_json::from_str::<RawId<'_>>(text).ok().and_then(|only| only.id);
    let id = id.and_then(|raw| Id::parse(raw.get().trim_matches('"')));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let path = match serde_path_to_error::deserialize::<_, RawEvent<'_>>(&mut deserializer) {
        Err(error) if error.path().iter().len() > 0 => error.path().to_string(),
        _ => String::new(),
    };
    let message = error.to_string();
    let got = Some(Actual::text(message.split(" at line ").next().unwrap_or_default()));
    if path.is_empty() || path == "." {
        (id, Violation::new(RejectReason::Malformed, "", got))
    } else {
        (id, Violation::new(RejectReason::InvalidField, &path, got))
    }
}
