//! The one typed event, to which our wire and every other channel decode, and which the pipeline validates.
//!
//! A channel sets what it knows and leaves the rest as [`Event::new`] and `Default` have it. Only properties are JSON
//! here, because they are JSON in every store.

use std::borrow::Cow;

use subway_protocol::{Id, Theme, Violation};

use crate::record::{Context, Object, Text};

/// Request to the pipeline, without its events.
#[derive(Clone, Debug)]
pub(crate) struct IncomingBatch<'a> {
    /// Key of the app.
    pub app_key: &'a str,
    /// ID of the batch. A channel without one creates it.
    pub batch_id: Id,
    /// Arrival of the request, milliseconds since the epoch.
    pub received_at: i64,
    /// Clocks of the sender.
    pub sent: SenderClocks,
    /// Senders of the events; at least one. A batch of our wire has one, a server may send for many.
    pub senders: Vec<Sender<'a>>,
}

/// Clocks of the sender when it sent. They may be wrong by any amount.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SenderClocks {
    /// Wall clock, milliseconds since the epoch.
    pub at: Option<i64>,
    /// Monotonic clock, milliseconds.
    pub mono: Option<u64>,
    /// Wall clock at the first sending of this batch, milliseconds since the epoch.
    pub first_at: Option<i64>,
}

impl SenderClocks {
    /// Returns the time since the first sending by the sender's clock, in milliseconds; 0 if it is unknown.
    #[must_use]
    pub(crate) fn age_ms(&self) -> i64 {
        self.at.zip(self.first_at).map_or(0, |(at, first)| at.saturating_sub(first))
    }
}

/// Sender of events. Its events share one record, and each gets a copy of what is here.
#[derive(Clone, Debug)]
pub(crate) struct Sender<'a> {
    /// The install.
    pub install_id: Id,
    /// App, SDK, host and device. The channel truncates the texts.
    pub context: Context<'a>,
    /// Properties of every event, within the limits.
    pub common: Object<'a>,
}

/// One event as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Event<'a> {
    /// Sender: an index in [`IncomingBatch::senders`].
    pub sender: usize,
    /// ID of the event.
    pub id: Id,
    /// Number within the install, from 1; 0 if the channel has none.
    pub seq: u64,
    /// Theme.
    pub theme: Theme,
    /// Code; not validated yet.
    pub code: Text<'a>,
    /// Device's wall clock, milliseconds since the epoch; may be wrong by any amount.
    pub ts: i64,
    /// Device's monotonic clock, milliseconds.
    pub mono: Option<u64>,
    /// Boot ID of the monotonic clock. Without one all readings of an install count as one boot.
    pub boot: Text<'a>,
    /// Event time, if the sender knows it better than the device; not validated yet.
    pub true_ts: Option<i64>,
    /// User; empty if none.
    pub user_id: Text<'a>,
    /// Session; empty if none.
    pub session_id: Text<'a>,
    /// Number of the session within the install, from 1.
    pub session_index: Option<u64>,
    /// Number of the event within the session, from 1.
    pub session_event: Option<u64>,
    /// The page.
    pub page: Page<'a>,
    /// Properties: a JSON object; not validated yet.
    pub props: Object<'a>,
}

/// Page. Empty texts are unknown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page<'a> {
    /// Path without query.
    pub path: Text<'a>,
    /// Title.
    pub title: Text<'a>,
    /// Page from which it was reached.
    pub referrer: Text<'a>,
    /// Time of entry by the device's wall clock, milliseconds since the epoch; may be wrong by any amount.
    pub enter_ts: Option<i64>,
}

impl<'a> Event<'a> {
    /// Creates an event of which nothing else is known.
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

/// Event, or the reason why it cannot be decoded, with its ID if that is known.
pub(crate) type DecodedEvent<'a> = Result<Event<'a>, (Option<Id>, Violation)>;
