//! The SDK's half: event, context and batch to JSON.

use crate::json::ObjectWriter;
use crate::limits::TEXT_BYTES;
use crate::outcome::truncate;
use crate::{Id, Theme, VERSION};

/// One event, ready to be written.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Globally unique; the collector recognises repetitions by it.
    pub id: Id,
    /// Number within the install, from 1, without gaps.
    pub seq: u64,
    /// What it is about.
    pub theme: Theme,
    /// Its name; must satisfy [`crate::theme::is_code`].
    pub code: &'a str,
    /// When it happened by the device's clock, milliseconds since the epoch.
    pub ts: i64,
    /// When it happened by the device's monotonic clock, milliseconds since that clock's zero.
    pub mono: u64,
    /// Which run of the monotonic clock `mono` belongs to.
    pub boot: &'a str,
    /// When it truly happened, if the caller knows better than the device's clock; milliseconds since the epoch.
    pub true_ts: Option<i64>,
    /// The user known at that moment; empty if none.
    pub user_id: &'a str,
    /// The session it belongs to.
    pub session: Option<Session>,
    /// The page it happened on.
    pub page: Option<&'a Page>,
    /// Properties: a complete JSON object, or empty for none. Not checked here.
    pub props: &'a str,
}

/// Where in a session an event stands.
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

/// Who sends: everything about a batch that does not change from event to event. Empty texts are left out.
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
    /// Maker of the device.
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
    /// The fields `app`, `sdk`, `host`, `device` and `network` as JSON without surrounding braces; nothing if all are
    /// empty. Every text is cut to [`TEXT_BYTES`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let mut object = ObjectWriter::new(&mut out);
        group(&mut object, "app", &[("version", &self.app_version)]);
        group(&mut object, "sdk", &[("name", &self.sdk_name), ("version", &self.sdk_version)]);
        group(
            &mut object,
            "host",
            &[("platform", &self.platform), ("app", &self.host_app), ("version", &self.host_version)],
        );
        group(
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
        object.text("network", cut(&self.network));
        out.remove(0);
        out
    }
}

fn cut(text: &str) -> &str {
    truncate(text, TEXT_BYTES as usize)
}

/// An object of texts, left out if all are empty.
fn group(object: &mut ObjectWriter<'_>, name: &str, fields: &[(&str, &str)]) {
    if fields.iter().any(|(_, value)| !value.is_empty()) {
        object.object(name, |inner| {
            for (name, value) in fields {
                inner.text(name, cut(value));
            }
        });
    }
}

/// Appends one event as a JSON object. The page's texts are cut to [`TEXT_BYTES`].
pub fn write_event(out: &mut String, event: &Event<'_>) {
    let mut object = ObjectWriter::new(out);
    object.id("id", event.id);
    object.integer("seq", event.seq as i64);
    object.string("theme", event.theme.as_str());
    object.string("code", event.code);
    object.integer("ts", event.ts);
    object.integer("mono", event.mono as i64);
    object.text("boot", event.boot);
    if let Some(true_ts) = event.true_ts {
        object.integer("true_ts", true_ts);
    }
    object.text("user_id", event.user_id);
    if let Some(session) = &event.session {
        object.object("session", |inner| {
            inner.id("id", session.id);
            inner.integer("index", session.index as i64);
            inner.integer("event", session.event as i64);
        });
    }
    if let Some(page) = event.page {
        object.object("page", |inner| {
            inner.text("path", cut(&page.path));
            inner.text("title", cut(&page.title));
            inner.text("referrer", cut(&page.referrer));
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

/// What surrounds the events of one sending of a batch.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// The batch's identity, the same at every sending.
    pub batch_id: Id,
    /// Who sends: anonymous, made by the SDK.
    pub install_id: Id,
    /// Device clock at this sending, milliseconds since the epoch.
    pub sent_at: i64,
    /// Monotonic clock at this sending, milliseconds.
    pub sent_mono: u64,
    /// Device clock when the batch was first sent, milliseconds since the epoch; the same at every sending.
    pub first_sent_at: i64,
    /// What [`Context::encode`] gave when the events were recorded, and the common properties; may be empty.
    pub context: &'a str,
    /// The client's ledger as a JSON object; may be empty.
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
    let place = object.field("events");
    place.push('[');
    for (at, event) in events.into_iter().enumerate() {
        if at > 0 {
            place.push(',');
        }
        place.push_str(event);
    }
    place.push(']');
    object.end();
}
