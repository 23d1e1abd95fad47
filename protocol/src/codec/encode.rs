//! Encodes what the SDK sends: event, context and batch as JSON.

use crate::json::ObjectWriter;
use crate::limits::{CONTEXT_TEXT_BYTES, TEXT_BYTES};
use crate::outcome::truncate;
use crate::{Id, Theme, VERSION};

/// One event to encode.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Globally unique; the collector recognises duplicates by it.
    pub id: Id,
    /// Number within the install, from 1, without gaps.
    pub seq: u64,
    /// Kind of event; routing and metrics go by it.
    pub theme: Theme,
    /// Event name; must satisfy [`crate::theme::is_code`].
    pub code: &'a str,
    /// Time of the event by the device's wall clock, milliseconds since the epoch.
    pub ts: i64,
    /// Time of the event by the device's monotonic clock, milliseconds since that clock's zero.
    pub mono: u64,
    /// Run of the monotonic clock that `mono` belongs to.
    pub boot: &'a str,
    /// True time of the event if the caller knows better than the device's clock, milliseconds since the epoch.
    pub true_ts: Option<i64>,
    /// User known at that time; empty if none.
    pub user_id: &'a str,
    /// Position within a session.
    pub session: Option<Session>,
    /// Page the event happened on.
    pub page: Option<&'a Page>,
    /// Properties: a complete JSON object, or empty for none. Not checked here.
    pub props: &'a str,
}

/// Position of an event within a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session's identity.
    pub id: Id,
    /// The session's number within the install, from 1.
    pub index: u64,
    /// The event's number within the session, from 1.
    pub event: u64,
}

/// A page of the mini-program or app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Its path without query.
    pub path: String,
    /// Its title; empty if unknown.
    pub title: String,
    /// The path or address it was reached from; empty if unknown.
    pub referrer: String,
    /// When it was entered by the device's clock, milliseconds since the epoch.
    pub enter_ts: Option<i64>,
}

/// Sender of a batch: app, SDK, host, device and network. Empty texts are left out of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Version of the mini-program or app.
    pub app_version: String,
    /// Name of the SDK package.
    pub sdk_name: String,
    /// Version of the SDK package.
    pub sdk_version: String,
    /// `jd`, `weapp`, `alipay`, `tt`, `swan`, `qq`, `web`, `node`, `android`, `ios`, `python`, `rust`.
    pub platform: String,
    /// Name of the app that hosts the mini-program.
    pub host_app: String,
    /// Version of the app that hosts the mini-program.
    pub host_version: String,
    /// Operating system.
    pub os: String,
    /// Version of the operating system.
    pub os_version: String,
    /// Manufacturer of the device.
    pub brand: String,
    /// Model of the device.
    pub model: String,
    /// Screen as `WIDTHxHEIGHT` in logical pixels.
    pub screen: String,
    /// Language as a BCP 47 tag.
    pub language: String,
    /// Time zone as an IANA name.
    pub timezone: String,
    /// `wifi`, `2g` .. `5g`, `none`, `unknown`.
    pub network: String,
}

impl Context {
    /// Encodes the fields `app`, `sdk`, `host`, `device` and `network` as JSON without surrounding braces.
    ///
    /// Returns an empty text if all of them are empty. Every text is truncated to [`CONTEXT_TEXT_BYTES`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let mut object = ObjectWriter::new(&mut out);
        write_group(&mut object, "app", &[("version", &self.app_version)]);
        write_group(&mut object, "sdk", &[("name", &self.sdk_name), ("version", &self.sdk_version)]);
        write_group(
            &mut object,
            "host",
            &[("platform", &self.platform), ("app", &self.host_app), ("version", &self.host_version)],
        );
        write_group(
            &mut object,
            "device",
            &[
                ("os", &self.os),
                ("os_version", &self.os_version),
                ("brand", &self.brand),
                ("model", &self.model),
                ("screen", &self.screen),
                ("language", &self.language),
                ("timezone", &self.timezone),
            ],
        );
        object.non_empty_string("network", truncate_context(&self.network));
        out.remove(0);
        out
    }
}

fn truncate_text(text: &str) -> &str {
    truncate(text, TEXT_BYTES as usize)
}

fn truncate_context(text: &str) -> &str {
    truncate(text, CONTEXT_TEXT_BYTES as usize)
}

/// Writes an object of texts, unless all of them are empty.
fn write_group(object: &mut ObjectWriter<'_>, name: &str, fields: &[(&str, &str)]) {
    if fields.iter().any(|(_, value)| !value.is_empty()) {
        object.object(name, |inner| {
            for (name, value) in fields {
                inner.non_empty_string(name, truncate_context(value));
            }
        });
    }
}

/// Appends one event as a JSON object. The texts of the page are truncated to [`TEXT_BYTES`].
pub fn write_event(out: &mut String, event: &Event<'_>) {
    let mut object = ObjectWriter::new(out);
    object.id("id", event.id);
    object.integer("seq", event.seq as i64);
    object.string("theme", event.theme.as_str());
    object.string("code", event.code);
    object.integer("ts", event.ts);
    object.integer("mono", event.mono as i64);
    object.non_empty_string("boot", event.boot);
    if let Some(true_ts) = event.true_ts {
        object.integer("true_ts", true_ts);
    }
    object.non_empty_string("user_id", event.user_id);
    if let Some(session) = &event.session {
        object.object("session", |inner| {
            inner.id("id", session.id);
            inner.integer("index", session.index as i64);
            inner.integer("event", session.event as i64);
        });
    }
    if let Some(page) = event.page {
        object.object("page", |inner| {
            inner.non_empty_string("path", truncate_text(&page.path));
            inner.non_empty_string("title", truncate_text(&page.title));
            inner.non_empty_string("referrer", truncate_text(&page.referrer));
            if let Some(enter_ts) = page.enter_ts {
                inner.integer("enter_ts", enter_ts);
            }
        });
    }
    if !event.props.is_empty() && event.props != "{}" {
        object.raw("props", event.props);
    }
    object.end();
}

/// Fields of a batch beside its events, for one upload.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// Identity of the batch, the same in every upload.
    pub batch_id: Id,
    /// Sender: an anonymous ID generated by the SDK.
    pub install_id: Id,
    /// Device clock at this upload, milliseconds since the epoch.
    pub sent_at: i64,
    /// Monotonic clock at this upload, milliseconds.
    pub sent_mono: u64,
    /// Device clock at the first upload of the batch, milliseconds since the epoch; the same in every upload.
    pub first_sent_at: i64,
    /// Output of [`Context::encode`] when the events were recorded, with the common properties; can be empty.
    pub context: &'a str,
    /// Ledger of the client as a JSON object; can be empty.
    pub ledger: &'a str,
}

/// Appends a whole batch. `events` are JSON objects as [`write_event`] writes them.
pub fn write_batch<'e>(out: &mut String, envelope: &Envelope<'_>, events: impl IntoIterator<Item = &'e str>) {
    let mut object = ObjectWriter::new(out);
    object.integer("v", VERSION as i64);
    object.id("batch_id", envelope.batch_id);
    object.id("install_id", envelope.install_id);
    object.integer("sent_at", envelope.sent_at);
    object.integer("sent_mono", envelope.sent_mono as i64);
    object.integer("first_sent_at", envelope.first_sent_at);
    if !envelope.context.is_empty() {
        object.fields(envelope.context);
    }
    if !envelope.ledger.is_empty() {
        object.raw("ledger", envelope.ledger);
    }
    let out = object.field("events");
    out.push('[');
    for (at, event) in events.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(event);
    }
    out.push(']');
    object.end();
}
