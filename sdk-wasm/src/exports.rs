//! What `js/sdk.js` calls: one function for nearly everything, because each export costs glue on both sides.

// wasm-bindgen's exports are unsafe underneath.
#![allow(unsafe_code)]

use subway_sdk_core::protocol::json::{ObjectWriter, write_integer};
use subway_sdk_core::{Client, Consent, DropReason, Id, Input, Now, Task, Theme, TrackError, UploadResult};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::fields::Fields;
use crate::host::JsStorage;
use crate::instance::{self, Instance};
use crate::store::SegmentStore;

/// Does what `verb` says (a letter of the table in `perform`) with client `number`. Times are milliseconds: `wall` since
/// the epoch, `mono` since any zero of this life. Gives an answer, or `!` and why not.
#[wasm_bindgen]
pub fn call(number: u32, wall: f64, mono: f64, verb: u8, text: &str) -> String {
    let now = Now { wall: wall as i64, mono: mono as u64 };
    let mut fields = Fields::new(text);
    if verb == b'O' {
        return open(&mut fields, now);
    }
    if verb == b'X' {
        instance::remove(number);
        return String::new();
    }
    instance::with(number, |instance| perform(instance, now, verb, text, fields))
}

/// When `call` must be made with `P` next, as a `mono` time; negative if not before the next input.
#[wasm_bindgen]
pub fn wake(number: u32) -> f64 {
    let mut wake = -1.0;
    instance::with(number, |instance| {
        wake = instance.client.poll_timeout().map_or(-1.0, |at| at as f64);
        String::new()
    });
    wake
}

/// The body of the upload that was handed out last, gzipped. The package for hosts that cannot send bytes goes without.
#[wasm_bindgen]
pub fn zipped(number: u32) -> Vec<u8> {
    crate::gzip::gzip(instance::with(number, |instance| std::mem::take(&mut instance.body)).as_bytes())
}

/// Most bytes under one key where the host does not say: what the strictest known host takes, with room to spare.
const KEY_BYTES: u64 = 190 * 1024;

/// Opens a client: the host's number, its most bytes under one key, the prefix of the keys, a text that differs from
/// life to life, settings, context. Answers with the client's number.
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

/// The verbs.
fn perform(instance: &mut Instance, now: Now, verb: u8, text: &str, fields: Fields<'_>) -> String {
    let client = &mut instance.client;
    let mut answer = String::new();
    let done = match verb {
        b'T' | b'e' => track(client, now, fields, verb == b'e').map(|id| answer = id.text()),
        b'i' => client.identify(now, text),
        b'r' => client.register(now, text),
        _ => Ok(()),
    };
    if let Err(error) = done {
        answer.push('!');
        answer.push_str(&error.to_string());
        return answer;
    }
    match verb {
        b'o' => client.logout(now),
        b'u' => client.unregister(now, text),
        b'x' => client.clear_registered(now),
        b'c' => client.set_context(text),
        b'p' => client.set_page(Fields::new(text).page()),
        b'f' => client.foreground(now),
        b'b' => client.background(now),
        b't' => client.timer_start(now, text),
        b'y' => client.set_consent(now, Consent::Granted),
        b'n' => client.set_consent(now, Consent::Denied),
        b'v' => client.count_dropped(now, DropReason::Invalid, 1),
        b'w' => _ = client.commit(now),
        b's' => {
            client.flush(now);
            return integer(client.last_seq());
        }
        b'E' => return integer(u64::from(client.is_settled_up_to(Fields::new(text).number().unwrap_or(0)))),
        b'N' => return notices(client),
        b'd' => return client.install_id().text(),
        b'l' => return status(client),
        b'P' => return poll(instance, now),
        b'B' => return std::mem::take(&mut instance.body),
        b'R' => report(client, now, Fields::new(text)),
        _ => {}
    }
    answer
}

fn integer(number: u64) -> String {
    let mut text = String::new();
    write_integer(&mut text, number as i64);
    text
}

/// Theme, code, the true time if it is known, the page in four lines, and the properties as JSON. If `timed`, the timer
/// named like the code ends and gives the event its duration. Answers with the ID.
fn track(client: &mut Core, now: Now, mut fields: Fields<'_>, timed: bool) -> Result<Id, TrackError> {
    // An unknown theme has no letter of its own in TrackError; the JavaScript half checks it.
    let theme = Theme::parse(fields.text()).unwrap_or(Theme::Custom);
    let (code, true_ts, page) = (fields.text(), fields.number(), fields.page());
    let true_ts = true_ts.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    let input = Input { theme, code, props: fields.rest(), page: page.as_ref(), true_ts };
    if timed { client.timer_end(now, code, input) } else { client.track(now, input) }
}

type Core = Client<SegmentStore<JsStorage>>;

/// `{"ledger": .., "consent": ..}`.
fn status(client: &Core) -> String {
    let mut text = String::new();
    let mut object = ObjectWriter::new(&mut text);
    client.ledger().write(object.field("ledger"));
    object.non_empty_string("consent", client.consent().as_str());
    object.end();
    text
}

/// What the developer should know, a message a line, each handed out once.
fn notices(client: &mut Core) -> String {
    let mut text = String::new();
    for notice in client.take_diagnostics() {
        if !text.is_empty() {
            text.push('\n');
        }
        // A collector's words are in some of them.
        text.extend(notice.chars().map(|c| if c == '\n' { ' ' } else { c }));
    }
    text
}

/// Persists what is due. Answers with the ID of a batch to be sent now, or nothing; `B` or [`zipped`] give its body,
/// once.
fn poll(instance: &mut Instance, now: Now) -> String {
    match instance.client.poll_task(now) {
        Some(Task::Upload(upload)) => {
            instance.body = upload.body;
            upload.batch_id.text()
        }
        None => String::new(),
    }
}

/// What came of an upload: the batch's ID, the HTTP status (0: no answer), what `Retry-After` says in milliseconds, the
/// answer's body.
fn report(client: &mut Core, now: Now, mut fields: Fields<'_>) {
    let Some(id) = Id::parse(fields.text()) else { return };
    let (status, retry_after_ms) = (fields.number().unwrap_or(0) as u16, fields.number());
    let body = fields.rest();
    let result =
        if status == 0 { UploadResult::Failed } else { UploadResult::Response { status, retry_after_ms, body } };
    client.handle_upload_result(now, id, result);
}
