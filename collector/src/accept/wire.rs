//! Converts batches of our own wire to the typed event of the pipeline.

use std::borrow::Cow;

use serde_json::value::RawValue;
use subway_protocol::codec::server::{self, WireBatch, WireText};
use subway_protocol::{Limits, RejectReason, Violation};

use crate::pipeline::{DecodedEvent, Event, IncomingBatch, Page, Sender, SenderClocks};
use crate::record::{Context, Object, Text};

/// Returns what the events of a batch share.
pub(crate) fn incoming<'a>(app_key: &'a str, batch: &'a WireBatch<'_>, received_at: i64) -> IncomingBatch<'a> {
    IncomingBatch {
        app_key,
        batch_id: batch.batch_id,
        received_at,
        sent: SenderClocks { at: Some(batch.sent_at), mono: batch.sent_mono, first_at: batch.first_sent_at },
        senders: vec![Sender {
            install_id: batch.install_id,
            context: context(batch),
            common: batch.common.map(Object::from).unwrap_or_default(),
        }],
    }
}

fn context<'a>(batch: &'a WireBatch<'_>) -> Context<'a> {
    let from = &batch.context;
    Context {
        app_version: from.app_version.as_str().into(),
        sdk_name: from.sdk_name.as_str().into(),
        sdk_version: from.sdk_version.as_str().into(),
        platform: from.platform.as_str().into(),
        host_app: from.host_app.as_str().into(),
        host_version: from.host_version.as_str().into(),
        os: from.os.as_str().into(),
        os_version: from.os_version.as_str().into(),
        brand: from.brand.as_str().into(),
        model: from.model.as_str().into(),
        screen: from.screen.as_str().into(),
        language: from.language.as_str().into(),
        timezone: from.timezone.as_str().into(),
        network: from.network.as_str().into(),
    }
}

/// Decodes one event of a batch.
pub(crate) fn event<'a>(raw: &'a RawValue, limits: &Limits) -> DecodedEvent<'a> {
    let bytes = raw.get().len() as u64;
    if bytes > limits.event_bytes {
        let id = server::WireEvent::decode_id(raw);
        return Err((id, Violation::limit_exceeded(RejectReason::EventTooLarge, "", limits.event_bytes, bytes)));
    }
    let wire = server::WireEvent::decode(raw)?;
    let (session, page) = (wire.session, wire.page.unwrap_or_default());
    let (session_id, session_index, session_event) =
        session.map_or((None, None, None), |session| (session.id, session.index, session.event));
    Ok(Event {
        seq: wire.seq,
        mono: wire.mono,
        boot: text(Some(wire.boot)),
        true_ts: wire.true_ts,
        user_id: text(Some(wire.user_id)),
        session_id: text(session_id),
        session_index,
        session_event,
        page: Page {
            path: text(page.path),
            title: text(page.title),
            referrer: text(page.referrer),
            enter_ts: page.enter_ts,
        },
        props: wire.props.map(Object::from).unwrap_or_default(),
        ..Event::new(wire.id, wire.theme, wire.code.0, wire.ts)
    })
}

fn text(text: Option<WireText<'_>>) -> Text<'_> {
    Text(text.map_or(Cow::Borrowed(""), |text| text.0))
}
