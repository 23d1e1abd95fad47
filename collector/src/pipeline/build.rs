//! Writes the JSON of a [`crate::record::Record`] piece by piece, so that the spool's writer only has to join them.

use serde_json::value::RawValue;
use subway_protocol::Theme;
use subway_protocol::codec::server::{Batch, Event};
use subway_protocol::json::{ObjectWriter, write_string};

/// Before the time of the first event, right after the head.
pub(super) const FIRST_TIME: &str = "{\"event_time\":";
/// Before the time of every other event.
pub(super) const NEXT_TIME: &str = ",{\"event_time\":";
/// After the last event.
pub(super) const TAIL: &str = "]}";

/// The record up to and with the opening bracket of its events.
pub(super) fn head(app_key: &str, batch: &Batch<'_>, received_at: i64) -> String {
    let mut out = String::with_capacity(512);
    let mut object = ObjectWriter::new(&mut out);
    object.string("app_key", app_key);
    object.id("batch_id", batch.batch_id);
    object.id("install_id", batch.install_id);
    object.integer("received_at", received_at);
    let context = &batch.context;
    object.object("context", |inner| {
        inner.text("app_version", &context.app_version);
        inner.text("sdk_name", &context.sdk_name);
        inner.text("sdk_version", &context.sdk_version);
        inner.text("platform", &context.platform);
        inner.text("host_app", &context.host_app);
        inner.text("host_version", &context.host_version);
        inner.text("os", &context.os);
        inner.text("os_version", &context.os_version);
        inner.text("brand", &context.brand);
        inner.text("model", &context.model);
        inner.text("screen", &context.screen);
        inner.text("language", &context.language);
        inner.text("timezone", &context.timezone);
        inner.text("network", &context.network);
    });
    raw(&mut object, "common", batch.common);
    object.field("events").push('[');
    out
}

/// One event after its time: `,"event_id":..}`.
pub(super) fn event(out: &mut String, event: &Event<'_>, theme: Theme) {
    out.push_str(",\"event_id\":\"");
    event.id.write(out);
    out.push_str("\",\"seq\":");
    integer(out, event.seq);
    out.push_str(",\"theme\":\"");
    out.push_str(theme.as_str());
    // The grammar of codes has nothing to escape.
    out.push_str("\",\"code\":\"");
    out.push_str(&event.code);
    out.push_str("\",\"ts\":");
    subway_protocol::json::write_integer(out, event.ts);
    number(out, ",\"mono\":", event.mono);
    text(out, ",\"boot\":", &event.boot);
    text(out, ",\"user_id\":", &event.user_id);
    if let Some(session) = &event.session {
        text(out, ",\"session_id\":", session.id.as_deref().unwrap_or_default());
        number(out, ",\"session_index\":", session.index);
        number(out, ",\"session_event\":", session.event);
    }
    if let Some(page) = &event.page {
        text(out, ",\"page_path\":", page.path.as_deref().unwrap_or_default());
        text(out, ",\"page_title\":", page.title.as_deref().unwrap_or_default());
        text(out, ",\"page_referrer\":", page.referrer.as_deref().unwrap_or_default());
        number(out, ",\"page_enter_ts\":", page.enter_ts.map(i64::unsigned_abs));
    }
    if let Some(props) = event.props {
        out.push_str(",\"props\":");
        one_line(out, props.get());
    }
    out.push('}');
}

fn raw(object: &mut ObjectWriter<'_>, name: &str, value: Option<&RawValue>) {
    if let Some(value) = value {
        one_line(object.field(name), value.get());
    }
}

/// JSON as it came, but on one line: a line break in JSON can only stand between tokens.
fn one_line(out: &mut String, json: &str) {
    let mut rest = json;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'\n' | b'\r')) {
        out.push_str(&rest[..at]);
        out.push(' ');
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// The value must not exceed `i64::MAX`, which validation has made sure of.
fn integer(out: &mut String, value: u64) {
    subway_protocol::json::write_integer(out, value as i64);
}

fn number(out: &mut String, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        out.push_str(name);
        integer(out, value);
    }
}

fn text(out: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        out.push_str(name);
        write_string(out, value);
    }
}
