//! The one typed event: what our wire and every other channel decode to, and what the pipeline judges.
//!
//! A channel says what it knows and leaves the rest as [`Event::new`] and `Default` have it. Nothing here goes through JSON but
//! the properties, which are JSON in every store.

use std::borrow::Cow;

use subway_protocol::{Id, Theme, Violation};

use crate::record::{Context, Object, Text};

/// One request as the pipeline takes it, without its events.
#[derive(Clone, Debug)]
pub(crate) struct IncomingBatch<'a> {
    /// Key of the app.
    pub app_key: &'a str,
    /// Identity of the batch. A channel without one makes it.
    pub batch_id: Id,
    /// When the request arrived, milliseconds since the epoch.
    pub received_at: i64,
    /// The sender's clocks.
    pub sent: SenderClocks,
    /// Who the events are from; at least one. A batch of our wire has one, a server may send for many.
    pub senders: Vec<Sender<'a>>,
}

/// The sender's clocks when it sent. They may be absurd.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SenderClocks {
    /// Its wall clock, milliseconds since the epoch.
    pub at: Option<i64>,
    /// Its monotonic clock, milliseconds.
    pub mono: Option<u64>,
    /// Its wall clock when it sent this batch for the first time, milliseconds since the epoch.
    pub first_at: Option<i64>,
}

impl SenderClocks {
    /// How long ago the batch was sent for the first time, by the sender's clock, milliseconds; 0 if it does not say.
    #[must_use]
    pub(crate) fn age_ms(&self) -> i64 {
        self.at.zip(self.first_at).map_or(0, |(at, first)| at.saturating_sub(first))
    }
}

/// Who events are from. All its events are kept together; each gets a copy of what is here.
#[derive(Clone, Debug)]
pub(crate) struct Sender<'a> {
    /// The install.
    pub install_id: Id,
    /// App, SDK, host and device. Texts are cut by whoever decodes.
    pub context: Context<'a>,
    /// Properties of every event, within the limits.
    pub common: Object<'a>,
}

/// One event as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Event<'a> {
    /// Whose it is: an index in [`IncomingBatch::senders`].
    pub sender: usize,
    /// Its identity.
    pub id: Id,
    /// Its number within the install, from 1; 0 if the channel has none.
    pub seq: u64,
    /// What it is about.
    pub theme: Theme,
    /// Its name; not yet checked.
    pub code: Text<'a>,
    /// The device's wall clock, milliseconds since the epoch; perhaps absurd.
    pub ts: i64,
    /// The device's monotonic clock, milliseconds.
    pub mono: Option<u64>,
    /// Which run of the monotonic clock; without a name all readings of an install are one run.
    pub boot: Text<'a>,
    /// When it truly happened, if the sender knows better than the device; not yet checked.
    pub true_ts: Option<i64>,
    /// The user, empty if none.
    pub user_id: Text<'a>,
    /// The session, empty if none.
    pub session_id: Text<'a>,
    /// The session's number within the install, from 1.
    pub session_index: Option<u64>,
    /// The event's number within the session, from 1.
    pub session_event: Option<u64>,
    /// The page.
    pub page: Page<'a>,
    /// Properties: a JSON object; not yet checked.
    pub props: Object<'a>,
}

/// A page. Empty texts are unknown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page<'a> {
    /// Path without query.
    pub path: Text<'a>,
    /// Title.
    pub title: Text<'a>,
    /// Where it was reached from.
    pub referrer: Text<'a>,
    /// When it was entered by the device's wall clock, milliseconds since the epoch; perhaps absurd.
    pub enter_ts: Option<i64>,
}

impl<'a> Event<'a> {
    /// An event of which nothing else is known.
    pub(crate) fn new(id: Id, theme: Theme, code: impl Into<Cow<'a, str>>, ts: i64) -> Self {
        Self {
            sender: 0,
            id,
            seq: 0,
            theme,
            code: Text(code.into()),
            ts,
            mono: None,
            boot: Text::default(),
            true_ts: None,
            user_id: Text::default(),
            session_id: Text::default(),
            session_index: None,
            session_event: None,
            page: Page::default(),
            props: Object::default(),
        }
    }
}

/// An event, or why it cannot be read, with its identity if that could be.
pub(crate) type DecodedEvent<'a> = Result<Event<'a>, (Option<Id>, Violation)>;
