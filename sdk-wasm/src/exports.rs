//! Exports for `js/src/sdk.js`: one function for nearly everything, because each export costs glue on both sides.

// wasm-bindgen's exports contain unsafe code.
#![allow(unsafe_code)]

use subway_sdk_core::protocol::json::{ObjectWriter, write_integer};
use subway_sdk_core::{Client, Consent, DropReason, Id, Input, Now, Task, Theme, TrackError, UploadResult};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::fields::Fields;
use crate::host::JsStorage;
use crate::instance::{self, Instance};
use crate::opcodes;
use crate::store::SegmentStore;

/// Runs `opcode` (see `opcodes`) on client `number` and returns the result, or `!` and an error message.
///
/// Times are milliseconds: `wall` since the epoch, `mono` since any zero of this run.
#[wasm_bindgen]
pub fn call(number: u32, wall: f64, mono: f64, opcode: u8, text: &str) -> String {
    let now = Now { wall: wall as i64, mono: mono as u64 };
    let mut fields = Fields::new(text);
    if opcode == opcodes::OPEN {
        return open(&mut fields, now);
    }
    if opcode == opcodes::CLOSE {
        instance::remove(number);
        return String::new();
    }
    instance::with(number, |instance| dispatch(instance, now, opcode, text, fields))
}

/// Returns when `call` must be made with `opcodes::POLL`, as a `mono` time; negative if not before the next input.
#[wasm_bindgen]
pub fn wake(number: u32) -> f64 {
    let mut wake = -1.0;
    instance::with(number, |instance| {
        wake = instance.client.poll_timeout().map_or(-1.0, |at| at as f64);
        String::new()
    });
    wake
}

/// Returns the gzipped body of the last upload, once. Left out of the package for hosts that cannot send bytes.
#[wasm_bindgen(js_name = zipped)]
pub fn take_gzipped_body(number: u32) -> Vec<u8> {
    crate::gzip::gzip(instance::with(number, |instance| std::mem::take(&mut instance.body)).as_bytes())
}

/// Default limit of bytes under one key: that of the strictest known host, with a margin.
const KEY_BYTES: u64 = 190 * 1024;

/// Opens a client and returns its number. Fields: number of the host, its limit of bytes under one key, prefix of the
/// keys, a text that differs from run to run, settings, context.
fn open(fields: &mut Fields<'_>, now: Now) -> String {
    let (host, key_bytes) = (fields.number().unwrap_or(0), fields.number().unwrap_or(KEY_BYTES));
    let (prefix, entropy, config) = (fields.text(), fields.text(), fields.config());
    let opened = SegmentStore::open(JsStorage(host as u32), prefix, key_bytes as usize)
        .ok()
        .and_then(|store| Client::open(store, config, fields.text(), entropy.as_bytes(), now).ok());
    match opened {
        Some(client) => integer(u64::from(instance::add(Instance { client, body: String::new() }))),
        None => String::from("!the storage cannot be read"),
    }
}

/// Runs one opcode.
fn dispatch(instance: &mut Instance, now: Now, opcode: u8, text: &str, fields: Fields<'_>) -> String {
    let client = &mut instance.client;
    let mut answer = String::new();
    let done = match opcode {
        opcodes::TRACK | opcodes::TIMER_END => {
            track(client, now, fields, opcode == opcodes::TIMER_END).map(|id| answer = id.text())
        }
        opcodes::IDENTIFY => client.identify(now, text),
        opcodes::REGISTER => client.register(now, text),
        _ => Ok(()),
    };
    if let Err(error) = done {
        answer.push('!');
        answer.push_str(&error.to_string());
        return answer;
    }
    match opcode {
        opcodes::LOGOUT => client.logout(now),
        opcodes::UNREGISTER => client.unregister(now, text),
        opcodes::CLEAR_REGISTERED => client.clear_registered(now),
        opcodes::SET_CONTEXT => client.set_context(text),
        opcodes::SET_PAGE => client.set_page(Fields::new(text).page()),
        opcodes::FOREGROUND => client.foreground(now),
        opcodes::BACKGROUND => client.background(now),
        opcodes::TIMER_START => client.timer_start(now, text),
        opcodes::GRANT_CONSENT => client.set_consent(now, Consent::Granted),
        opcodes::DENY_CONSENT => client.set_consent(now, Consent::Denied),
        opcodes::COUNT_INVALID => client.count_dropped(now, DropReason::Invalid, 1),
        opcodes::COMMIT => _ = client.commit(now),
        opcodes::FLUSH => {
            client.flush(now);
            return integer(client.last_seq());
        }
        opcodes::IS_SETTLED => {
            return integer(u64::from(client.is_settled_up_to(Fields::new(text).number().unwrap_or(0))));
        }
        opcodes::TAKE_DIAGNOSTICS => return diagnostics(client),
        opcodes::INSTALL_ID => return client.install_id().text(),
        opcodes::STATUS => return status(client),
        opcodes::POLL => return poll(instance, now),
        opcodes::TAKE_BODY => return std::mem::take(&mut instance.body),
        opcodes::UPLOAD_RESULT => handle_upload_result(client, now, Fields::new(text)),
        _ => {}
    }
    answer
}

fn integer(number: u64) -> String {
    let mut text = String::new();
    write_integer(&mut text, number as i64);
    text
}

/// Tracks an event and returns its ID. Fields: theme, code, true time if known, page in four lines, properties as JSON.
/// If `timed`, the timer with the name of the code is stopped and adds the duration.
fn track(client: &mut Core, now: Now, mut fields: Fields<'_>, timed: bool) -> Result<Id, TrackError> {
    // TrackError has no variant for an unknown theme; the JavaScript side checks it.
    let theme = Theme::parse(fields.text()).unwrap_or(Theme::Custom);
    let (code, true_ts, page) = (fields.text(), fields.number(), fields.page());
    let true_ts = true_ts.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    let input = Input { theme, code, props: fields.rest(), page: page.as_ref(), true_ts };
    if timed { client.timer_end(now, code, input) } else { client.track(now, input) }
}

type Core = Client<SegmentStore<JsStorage>>;

/// Returns `{"ledger": .., "consent": ..}`.
fn status(client: &Core) -> String {
    let mut text = String::new();
    let mut object = ObjectWriter::new(&mut text);
    client.ledger().write(object.field("ledger"));
    object.non_empty_string("consent", client.consent().as_str());
    object.end();
    text
}

/// Removes and returns the messages for the developer, one per line.
fn diagnostics(client: &mut Core) -> String {
    let mut text = String::new();
    for diagnostic in client.take_diagnostics() {
        if !text.is_empty() {
            text.push('\n');
        }
        // Messages can quote the collector, and so contain line breaks.
        text.extend(diagnostic.chars().map(|c| if c == '\n' { ' ' } else { c }));
    }
    text
}

/// Commits what is due. Returns the ID of a batch to send now, or an empty text. `opcodes::TAKE_BODY` or
/// [`take_gzipped_body`] returns its body, once.
fn poll(instance: &mut Instance, now: Now) -> String {
    match instance.client.poll_task(now) {
        Some(Task::Upload(upload)) => {
            instance.body = upload.body;
            upload.batch_id.text()
        }
        None => String::new(),
    }
}

/// Handles an upload result. Fields: ID of the batch, HTTP status (0: no response), `Retry-After` in milliseconds, body
/// of the response.
fn handle_upload_result(client: &mut Core, now: Now, mut fields: Fields<'_>) {
    let Some(id) = Id::parse(fields.text()) else { return };
    let (status, retry_after_ms) = (fields.number().unwrap_or(0) as u16, fields.number());
    let body = fields.rest();
    let result =
        if status == 0 { UploadResult::Failed } else { UploadResult::Response { status, retry_after_ms, body } };
    client.handle_upload_result(now, id, result);
}
