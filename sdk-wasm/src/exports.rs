//! What `js/sdk.js` calls. Times are milliseconds: `wall` since the epoch, `mono` since any zero of this life.

// wasm-bindgen's exports are unsafe underneath.
#![allow(unsafe_code)]

use subway_sdk_core::protocol::json::{ObjectWriter, write_string};
use subway_sdk_core::{Client, Consent, Id, Input, Now, Task, Theme, TrackError, UploadResult};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::host::JsStorage;
use crate::instance::{self, Instance};
use crate::store::SegmentStore;
use crate::{fields, gzip};

fn now(wall: f64, mono: f64) -> Now {
    Now { wall: wall as i64, mono: mono as u64 }
}

/// How an error travels in a text that else is an answer.
fn refusal(error: &TrackError) -> String {
    ["!", &error.describe()].concat()
}

fn answer(done: Result<(), TrackError>) -> String {
    done.map_or_else(|error| refusal(&error), |()| String::new())
}

/// Opens a client on the storage `host`, under keys that begin with `prefix`; gives its number, or -1 if the storage
/// could not be read. `config` and `context`: see [`fields`]; `entropy`: any text that differs from life to life.
#[wasm_bindgen]
pub fn open(host: u32, prefix: &str, config: &str, context: &str, entropy: &str, wall: f64, mono: f64) -> i32 {
    let (config, key_bytes) = fields::config(config);
    let Ok(store) = SegmentStore::open(JsStorage(host), prefix, key_bytes) else { return -1 };
    let client = Client::open(store, config, fields::context(context), entropy.as_bytes(), now(wall, mono));
    client.map_or(-1, |client| instance::add(Instance { client, upload: None }) as i32)
}

/// Ends a client; what was not persisted is lost.
#[wasm_bindgen]
pub fn close(number: u32) {
    instance::remove(number);
}

/// Records an event; gives its ID, or `!` and why not. `true_ts` is NaN if the event has none; an empty `page` is the
/// current one.
#[wasm_bindgen]
#[allow(clippy::too_many_arguments)]
pub fn track(number: u32, wall: f64, mono: f64, theme: &str, code: &str, props: &str, page: &str, true_ts: f64) -> String {
    instance::with(number, |instance| {
        let Some(theme) = Theme::parse(theme) else { return String::from("!unknown_theme") };
        let page = fields::page(page);
        let true_ts = if true_ts.is_nan() { None } else { Some(true_ts as i64) };
        let input = Input { theme, code, props, page: page.as_ref(), true_ts };
        match instance.client.track(now(wall, mono), input) {
            Ok(id) => id.text(),
            Err(error) => refusal(&error),
        }
    })
}

/// Every other input and question; `verb` is one of the letters below (`js/core.js` names them). Gives an answer, or
/// `!` and why not.
#[wasm_bindgen]
pub fn call(number: u32, wall: f64, mono: f64, verb: u8, text: &str) -> String {
    let now = now(wall, mono);
    instance::with(number, |instance| {
        let client = &mut instance.client;
        match verb {
            b'i' => return answer(client.identify(now, text)),
            b'o' => client.logout(now),
            b'r' => return answer(client.register(now, text)),
            b'u' => client.unregister(now, text),
            b'x' => client.clear_registered(now),
            b'c' => client.set_context(fields::context(text)),
            b'p' => client.set_page(fields::page(text)),
            b'f' => client.foreground(now),
            b'b' => client.background(now),
            b's' => client.flush(now),
            b't' => client.timer_start(now, text),
            b'e' => return timer_end(client.timer_end(now, text)),
            b'y' => client.set_consent(now, Consent::Granted),
            b'n' => client.set_consent(now, Consent::Denied),
            b'w' => return String::from(if client.commit(now) { "" } else { "!storage" }),
            b'd' => return client.install_id().text(),
            b'l' => return status(client),
            _ => {}
        }
        String::new()
    })
}

fn timer_end(elapsed: Option<u64>) -> String {
    let mut text = String::new();
    if let Some(elapsed) = elapsed {
        subway_sdk_core::protocol::json::write_integer(&mut text, elapsed as i64);
    }
    text
}

/// `{"ledger": .., "consent": .., "notices": [..]}`; the notices are taken.
fn status(client: &mut Client<SegmentStore<JsStorage>>) -> String {
    let mut ledger = String::new();
    client.ledger().write(&mut ledger);
    let mut notices = String::from("[");
    for notice in client.take_notices() {
        if notices.len() > 1 {
            notices.push(',');
        }
        write_string(&mut notices, &notice);
    }
    notices.push(']');
    let mut text = String::new();
    let mut object = ObjectWriter::new(&mut text);
    object.raw("ledger", &ledger);
    object.text("consent", client.consent().as_str());
    object.raw("notices", &notices);
    object.end();
    text
}

/// Persists what is due; gives the ID of a batch to be sent now, or nothing. Its body is had from [`body`] or [`zipped`].
#[wasm_bindgen]
pub fn poll(number: u32, wall: f64, mono: f64) -> String {
    instance::with(number, |instance| match instance.client.poll_task(now(wall, mono)) {
        Some(Task::Upload(upload)) => {
            let id = upload.batch_id;
            instance.upload = Some((id, upload.body));
            id.text()
        }
        None => String::new(),
    })
}

/// The batch to be sent, as JSON; it is handed out once.
#[wasm_bindgen]
pub fn body(number: u32) -> String {
    instance::with(number, |instance| instance.upload.take().map(|(_, body)| body).unwrap_or_default())
}

/// The batch to be sent, as gzipped JSON; it is handed out once.
#[wasm_bindgen]
pub fn zipped(number: u32) -> Vec<u8> {
    gzip::gzip(body(number).as_bytes())
}

/// Reports what came of sending `batch`: the HTTP status, or 0 if there was no answer; what `Retry-After` says in
/// milliseconds, or NaN; the answer's body.
#[wasm_bindgen]
pub fn report(number: u32, wall: f64, mono: f64, batch: &str, status: u16, retry_after_ms: f64, body: &str) {
    instance::with(number, |instance| {
        let Some(id) = Id::parse(batch) else { return };
        let retry_after_ms = if retry_after_ms >= 0.0 { Some(retry_after_ms as u64) } else { None };
        let result =
            if status == 0 { UploadResult::Failed } else { UploadResult::Answer { status, retry_after_ms, body } };
        instance.client.on_result(now(wall, mono), id, result);
    });
}

/// When [`poll`] must be called next, as a `mono` time; negative if not before the next input.
#[wasm_bindgen]
pub fn wake(number: u32) -> f64 {
    instance::with(number, |instance| Some(instance.client.next_wake().map_or(-1.0, |at| at as f64))).unwrap_or(-1.0)
}
