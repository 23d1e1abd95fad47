//! Builds the JSON of a [`crate::record::Record`] in pieces, so that the spool's writer only has to concatenate them.

use subway_protocol::limits::{MAX_SAFE_INTEGER, MAX_TIME_MS};

use super::ValidEvent;
use super::event::{Event, IncomingBatch, Sender};
use crate::record::{self, DECIDED, Record, write_known};

/// Prefix of the number of bytes that all events of a record share. It comes first, so that fanout can size a delivery
/// without decoding the record.
pub(super) const SHARED: &str = "{\"shared_bytes\":";
/// End of a record, after the last event.
pub(super) const TAIL: &str = "]}";

/// Returns the record after the number of shared bytes, up to and with the opening bracket of its events.
pub(super) fn record_head(incoming: &IncomingBatch<'_>, sender: &Sender<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let record = Record {
        app_key: incoming.app_key.into(),
        batch_id: incoming.batch_id.text().into(),
        install_id: sender.install_id.text().into(),
        received_at: incoming.received_at,
        common: sender.common.clone(),
        context: sender.context.clone(),
        events: Vec::new(),
    };
    write_known(&mut out, Record::COLUMNS, record.values());
    out.extend_from_slice(b",\"context\":{");
    let mut context = Vec::with_capacity(256);
    write_known(&mut context, record::Context::COLUMNS, record.context.values());
    out.extend_from_slice(context.get(1..).unwrap_or_default());
    out.extend_from_slice(b"},\"events\":[");
    out
}

/// Appends the columns that are decided last, as the beginning of an event.
pub(super) fn write_decided(out: &mut Vec<u8>, event: &ValidEvent) {
    let event = record::Event {
        event_time: event.event_time,
        time_source: event.time_source.as_str().into(),
        unverified: event.unverified,
        ..record::Event::default()
    };
    let start = out.len();
    write_known(out, &record::Event::COLUMNS[..DECIDED], event.values());
    // The brace replaces the comma before the first member.
    if let Some(comma) = out.get_mut(start) {
        *comma = b'{';
    }
}

/// Appends the rest of an event: `,"event_id":..}`.
pub(super) fn write_event(out: &mut Vec<u8>, event: &Event<'_>) {
    let stored = record::Event {
        event_id: event.id.text().into(),
        seq: event.seq,
        theme: event.theme.as_str().into(),
        code: event.code.borrowed(),
        ts: event.ts.clamp(0, MAX_TIME_MS),
        mono: event.mono.filter(|mono| *mono <= MAX_SAFE_INTEGER),
        boot: event.boot.borrowed(),
        user_id: event.user_id.borrowed(),
        session_id: event.session_id.borrowed(),
        session_index: event.session_index,
        session_event: event.session_event,
        page_path: event.page.path.borrowed(),
        page_title: event.page.title.borrowed(),
        page_referrer: event.page.referrer.borrowed(),
        // A time outside of the calendar is unknown.
        page_enter_ts: event.page.enter_ts.filter(|time| (0..=MAX_TIME_MS).contains(time)),
        props: event.props.borrowed(),
        ..record::Event::default()
    };
    write_known(out, &record::Event::COLUMNS[DECIDED..], stored.values().into_iter().skip(DECIDED));
    out.push(b'}');
}
