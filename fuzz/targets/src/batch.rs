//! A batch from its bytes to the spool's record and to every form in which an event is shown or delivered. Also
//! compares what the SDK accepts with what the collector accepts.

use serde_json::Value;
use subway_collector::fuzzing::{self, Judged};
use subway_collector::record::Record;
use subway_collector::row::Row;
use subway_protocol::codec::encode::{Context, Envelope, Event, write_batch, write_event};
use subway_protocol::codec::receipt::Receipt;
use subway_protocol::codec::server::{self, Problem};
use subway_protocol::limits::MAX_TIME_MS;
use subway_protocol::{Id, Theme};
use subway_sdk_core::{Client, Config, Input, MemoryStore, Now, Page, Task, TrackError};

/// 2015-05-17T04:05:12Z.
const NOW: i64 = 1_431_835_512_000;

/// Decodes any body. It is refused with a reason, or accepted with every event accounted for.
pub fn body(data: &[u8]) {
    match fuzzing::judge(data, NOW) {
        Ok(judged) => {
            accounted(&judged);
            strict(data);
            for record in &judged.records {
                stored(&record.json, record.events);
            }
        }
        Err(problem) => refused(&problem),
    }
}

fn refused(problem: &Problem) {
    assert!(matches!(problem.code.status(), 400 | 413) && !problem.detail.is_empty(), "{problem:?}");
    let answer = serde_json::to_vec(problem).unwrap();
    // The value is quoted in part, so that the response cannot amplify the request.
    assert!(answer.len() < 8 * 1024, "{} bytes of {problem:?}", answer.len());
}

/// Decodes the receipt as the client does.
fn accounted(judged: &Judged) {
    let stored = judged.records.iter().map(|record| record.events).sum::<u64>();
    assert_eq!(judged.received, stored + judged.rejected.len() as u64);
    let receipt = server::Receipt {
        batch_id: judged.batch_id,
        server_time: NOW,
        stored,
        duplicate: Vec::new(),
        rejected: judged.rejected.clone(),
    };
    let text = serde_json::to_string(&receipt).unwrap();
    let read = Receipt::decode(&text).unwrap();
    assert!(read.accounts_for(judged.received), "{text}");
    for (read, sent) in read.rejected.iter().zip(&judged.rejected) {
        assert_eq!((read.index, read.reason.as_str()), (sent.index, sent.violation.reason.as_str()));
    }
}

/// Checks that accepted bodies have objects where objects are required.
fn strict(data: &[u8]) {
    let Ok(tree) = serde_json::from_slice::<Value>(data) else { return };
    assert!(tree.is_object());
    for name in ["app", "sdk", "host", "device", "common", "ledger"] {
        assert!(matches!(tree[name], Value::Null | Value::Object(_)), "{name}: {}", tree[name]);
    }
}

/// Checks that a record of the spool can be read, and that its events mean the same in every form.
fn stored(json: &str, events: u64) {
    assert!(!json.contains(['\n', '\r']), "{json}");
    let record: Record<'_> = serde_json::from_str(json).unwrap();
    assert_eq!(record.events.len() as u64, events, "{json}");
    forms(&record);
}

fn forms(record: &Record<'_>) {
    let shared = subway_collector::row::shared_suffix(record);
    for event in &record.events {
        let row = Row::new(record, event);
        let mut line = Vec::new();
        row.write_json(&mut line);
        let line = String::from_utf8(line).unwrap();
        assert!(!line.contains(['\n', '\r']), "{line}");
        let mut other = Vec::new();
        subway_collector::row::write(&mut other, event, &shared);
        assert_eq!(other, line.as_bytes());
        for as_text in [false, true] {
            let document = fuzzing::document(record, event, as_text);
            let read = fuzzing::read_document(&document).unwrap();
            let mut again = Vec::new();
            read.write_json(&mut again);
            assert_eq!(String::from_utf8(again).unwrap(), line, "{document}");
        }
    }
}

/// Reads any text as a record of the spool. A readable one means the same when it is written again.
pub fn record(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(record) = serde_json::from_str::<Record<'_>>(text) else { return };
    let again = serde_json::to_string(&record).unwrap();
    let read: Record<'_> = serde_json::from_str(&again).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), again);
    for event in &record.events {
        let mut line = Vec::new();
        Row::new(&record, event).write_json(&mut line);
        assert!(!line.contains(&b'\n'));
    }
}

/// Reads any text as a document of Elasticsearch.
pub fn document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(row) = fuzzing::read_document(text) else { return };
    let mut line = Vec::new();
    row.write_json(&mut line);
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok(), "{text}");
}

/// Reads a store's response to a bulk request: a result for each item, or none at all.
pub fn bulk_answer(data: &[u8]) {
    let [count, body @ ..] = data else { return };
    if let Some(verdicts) = fuzzing::bulk_answer(body, usize::from(*count)) {
        assert_eq!(verdicts, usize::from(*count));
    }
}

/// Input of a developer to the SDK, one value per line.
struct Call<'a> {
    theme: Theme,
    code: &'a str,
    user: &'a str,
    page: Page,
    true_ts: Option<i64>,
    wall: i64,
    common: &'a str,
    model: &'a str,
    props: &'a str,
}

impl<'a> Call<'a> {
    fn read(text: &'a str) -> Self {
        let mut lines = text.splitn(11, '\n');
        let mut next = || lines.next().unwrap_or_default();
        Self {
            theme: Theme::parse(next()).unwrap_or(Theme::Custom),
            code: next(),
            user: next(),
            page: Page {
                path: next().to_owned(),
                title: next().to_owned(),
                referrer: next().to_owned(),
                enter_ts: next().parse().ok(),
            },
            true_ts: next().parse().ok(),
            wall: next().parse().unwrap_or(NOW),
            common: next(),
            model: "m",
            props: next(),
        }
    }

    fn input(&self) -> Input<'_> {
        Input { theme: self.theme, code: self.code, props: self.props, page: Some(&self.page), true_ts: self.true_ts }
    }

    /// Returns the batch that the SDK would send without any checks.
    fn unchecked(&self) -> String {
        let id = Id::v7(NOW, [7; 10]);
        let mut event = String::new();
        write_event(
            &mut event,
            &Event {
                id,
                seq: 1,
                theme: self.theme,
                code: self.code,
                ts: self.wall.clamp(0, MAX_TIME_MS),
                mono: 1000,
                boot: "b",
                true_ts: self.true_ts,
                user_id: self.user,
                session: None,
                page: Some(&self.page),
                props: self.props,
            },
        );
        let context = if self.common.is_empty() { String::new() } else { format!("\"common\":{}", self.common) };
        let envelope = Envelope {
            batch_id: id,
            install_id: id,
            sent_at: self.wall.clamp(0, MAX_TIME_MS),
            sent_mono: 1000,
            first_sent_at: self.wall.clamp(0, MAX_TIME_MS),
            context: &context,
            ledger: "",
        };
        let mut body = String::new();
        write_batch(&mut body, &envelope, [event.as_str()]);
        body
    }
}

/// Lines: theme, code, user, path, title, referrer, time of entering, true time, wall clock, common properties; the
/// rest are the properties. The collector stores what the SDK accepts unchanged, and refuses what the SDK refuses.
pub fn track(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let call = Call::read(text);
    let now = Now { wall: call.wall, mono: 1000 };
    let context = Context { model: call.model.to_owned(), ..Context::default() };
    let mut client =
        Client::open(MemoryStore::default(), Config::default(), &context.encode(), b"entropy", now).unwrap();
    let refused = |what: &str| match fuzzing::judge(call.unchecked().as_bytes(), call.wall.clamp(0, MAX_TIME_MS)) {
        Err(_) => {}
        Ok(judged) => assert_eq!(judged.rejected.len(), 1, "{what}: the SDK refuses what the collector takes: {text}"),
    };
    if !call.common.is_empty() && client.register(now, call.common).is_err() {
        return refused("common");
    }
    if !call.user.is_empty() && client.identify(now, call.user).is_err() {
        return refused("user");
    }
    match client.track(now, call.input()) {
        Ok(_) => {}
        Err(TrackError::Invalid(_)) => return refused("event"),
        Err(other) => panic!("{other:?}"),
    }
    client.flush(now);
    let Some(Task::Upload(upload)) = client.poll_task(now) else { panic!("nothing is sent: {text}") };
    let received_at = call.wall.clamp(0, MAX_TIME_MS);
    let judged = fuzzing::judge(upload.body.as_bytes(), received_at).unwrap_or_else(|problem| panic!("{problem:?}"));
    accounted(&judged);
    if call.true_ts.is_some() && judged.rejected.len() == 1 {
        // The allowed times depend on the collector's settings, which the SDK does not know.
        assert_eq!(judged.rejected[0].violation.field, "true_ts");
        return;
    }
    assert!(judged.rejected.is_empty(), "{:?}: {text}", judged.rejected);
    let record: Record<'_> = serde_json::from_str(&judged.records[0].json).unwrap();
    let event = &record.events[0];
    assert_eq!((&*event.code, &*event.user_id), (call.code, call.user), "{text}");
    assert_eq!(&*event.page_path, subway_protocol::outcome::truncate(&call.page.path, 2048));
    let plain = |json: &str| json.replace(['\n', '\r'], " ");
    let sent = if call.props == "{}" { "" } else { call.props };
    assert_eq!(event.props.get().map_or(String::new(), |raw| raw.get().to_owned()), plain(sent.trim()), "{text}");
    forms(&record);
}

/// Reads ClickHouse's response to a query for events: rows, or an error.
pub fn clickhouse_rows(data: &[u8]) {
    for row in fuzzing::clickhouse_rows(data).unwrap_or_default() {
        let mut line = Vec::new();
        row.write_json(&mut line);
        assert!(!line.contains(&b'\n'));
    }
}
