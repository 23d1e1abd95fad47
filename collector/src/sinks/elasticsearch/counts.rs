//! Count documents: documents whose ID is what they count, so that a plain document count is exact. One per app,
//! local day and install for visitors, one per app and install for new users, one per app and user for followers.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::SinkError;
use super::super::days::{DAY_MS, is_near};
use super::bulk::{self, pack, verdicts};
use super::document;
use super::errors::ErrorClass;
use super::layout::{Layout, LayoutRequest, LayoutStore};
use super::names;
use super::retry::RetryDelays;
use super::server::Server;
use crate::config::{BulkCompression as Compression, Elasticsearch as Settings};
use crate::record::{Event, Record};

/// Theme of the events that count as visits.
const VIEW: &str = "view";
/// Documents in one request. With about 300 bytes each a request has a megabyte.
const MAX_DOCUMENTS: usize = 4000;
/// Document IDs cached as written, in each of two generations. A store answers 409 to an existing one, which costs it
/// more than these 50 bytes cost here: at most about 20 MB.
const MAX_CACHED_IDS: usize = 200_000;
/// Number from which versions of new users' documents count downwards, so that the earliest event wins: 2^60, above
/// every time in milliseconds and below the largest version, 2^63.
const EARLIEST_WINS: i64 = 1 << 60;

/// Time zones of the apps.
struct AppTimeZones {
    zones: HashMap<String, TimeZone>,
}

impl AppTimeZones {
    /// Returns the offset from UTC at `millis` and the range in which it holds, all in milliseconds.
    fn offset(&self, app: &str, millis: i64) -> (i64, i64, i64) {
        let (Some(zone), Ok(at)) = (self.zones.get(app), Timestamp::from_millisecond(millis)) else {
            return (0, millis, millis);
        };
        let offset = i64::from(zone.to_offset(at).seconds()) * 1000;
        let until = zone.following(at).next().map_or(i64::MAX, |change| change.timestamp().as_millisecond() - 1);
        (offset, millis, until)
    }
}

/// Accumulator of the count documents of a batch.
pub(super) struct CountAccumulator {
    zones: Arc<AppTimeZones>,
    follow: Arc<(String, String)>,
    /// App, range of times and offset of the last event.
    offset: (String, i64, i64, i64),
    /// App, install and local day of the last view.
    last_view: (String, String, i64),
    /// App, install and earliest time of the current run of events of one install.
    last_install: (String, String, i64),
    visitors: HashSet<(String, String, i64)>,
    /// Months that have visitors, and whether any visit is near its arrival.
    months: BTreeMap<String, bool>,
    installs: HashMap<(String, String), i64>,
    /// Last statement by app and user: its time, its position, whether it was to follow, and the event's ID.
    followers: HashMap<(String, String), (i64, u64, bool, String)>,
}

impl CountAccumulator {
    /// Adds one event.
    pub(super) fn observe(&mut self, record: &Record<'_>, event: &Event<'_>, position: u64) {
        let (app, install) = (record.app_key.as_ref(), record.install_id.as_ref());
        let time = event.event_time;
        if event.theme == VIEW {
            let day = self.day(app, time);
            if self.last_view.2 != day || self.last_view.1 != install || self.last_view.0 != app {
                self.last_view = (app.to_owned(), install.to_owned(), day);
                if self.visitors.insert(self.last_view.clone()) {
                    *self.months.entry(names::month_of(day)).or_default() |= is_near(time, record.received_at);
                }
            }
        }
        if self.last_install.1 == install && self.last_install.0 == app {
            self.last_install.2 = self.last_install.2.min(time);
        } else {
            self.note_install();
            self.last_install = (app.to_owned(), install.to_owned(), time);
        }
        let follows = event.code == self.follow.0;
        if follows || event.code == self.follow.1 {
            let user = if event.user_id.is_empty() { install } else { &event.user_id };
            let statement = (time, position, follows, event.event_id.to_string());
            let latest = self.followers.entry((app.to_owned(), user.to_owned())).or_insert_with(|| statement.clone());
            if (statement.0, statement.1) > (latest.0, latest.1) {
                *latest = statement;
            }
        }
    }

    fn note_install(&mut self) {
        let (app, install, time) = std::mem::take(&mut self.last_install);
        if !install.is_empty() {
            let first = self.installs.entry((app, install)).or_insert(time);
            *first = time.min(*first);
        }
    }

    /// Returns the local day of `app` at `millis`, in days since the epoch.
    fn day(&mut self, app: &str, millis: i64) -> i64 {
        let (known, from, until, offset) = &self.offset;
        let mut offset = *offset;
        if known != app || millis < *from || millis > *until {
            let (found, from, until) = self.zones.offset(app, millis);
            self.offset = (app.to_owned(), from, until, found);
            offset = found;
        }
        millis.saturating_add(offset).div_euclid(DAY_MS)
    }
}

/// Count document to be written.
struct CountDocument {
    lines: Vec<u8>,
    /// Cache entry to insert when it is written.
    cache_entry: Option<(u128, i64)>,
}

/// Writer of count documents. Skips those that it has written before.
pub(super) struct Counts {
    prefix: String,
    gzip: bool,
    zones: Arc<AppTimeZones>,
    follow: Arc<(String, String)>,
    written_ids: Mutex<WrittenIdCache>,
    hashers: (RandomState, RandomState),
}

impl Counts {
    /// # Errors
    /// [`SinkError::Misconfigured`] if a time zone is unknown.
    pub(super) fn new(settings: &Settings, zones: &[(String, String)]) -> Result<Self, SinkError> {
        let mut known = HashMap::new();
        for (app, name) in zones {
            let zone =
                TimeZone::get(name).map_err(|error| SinkError::misconfigured(format!("time zone {name}: {error}")))?;
            known.insert(app.clone(), zone);
        }
        Ok(Self {
            prefix: settings.index_prefix().to_owned(),
            gzip: settings.compression == Compression::Gzip,
            zones: Arc::new(AppTimeZones { zones: known }),
            follow: Arc::new((settings.follow_code().to_owned(), settings.unfollow_code().to_owned())),
            written_ids: Mutex::default(),
            hashers: (RandomState::new(), RandomState::new()),
        })
    }

    /// Creates an empty accumulator.
    pub(super) fn accumulator(&self) -> CountAccumulator {
        CountAccumulator {
            zones: Arc::clone(&self.zones),
            follow: Arc::clone(&self.follow),
            offset: (String::new(), 0, -1, 0),
            last_view: (String::new(), String::new(), i64::MIN),
            last_install: (String::new(), String::new(), 0),
            visitors: HashSet::new(),
            months: BTreeMap::new(),
            installs: HashMap::new(),
            followers: HashMap::new(),
        }
    }

    /// Writes the accumulated documents, except those cached as written.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if some could not be written.
    pub(super) async fn write(
        &self,
        server: &Server,
        layout_store: &LayoutStore,
        accumulator: CountAccumulator,
    ) -> Result<(), SinkError> {
        let request = LayoutRequest { months: accumulator.months.clone(), ..LayoutRequest::default() };
        let layout = layout_store.decide(server, &request).await?;
        let mut documents = self.documents(&layout, accumulator);
        while !documents.is_empty() {
            let rest = documents.split_off(documents.len().min(MAX_DOCUMENTS));
            self.write_chunk(server, documents).await?;
            documents = rest;
        }
        Ok(())
    }

    async fn write_chunk(&self, server: &Server, mut documents: Vec<CountDocument>) -> Result<(), SinkError> {
        let mut retry_delays = RetryDelays::default();
        loop {
            let body = pack(documents.iter().flat_map(|document| document.lines.iter().copied()).collect(), self.gzip)?;
            let answer = server.send_lines(bulk::PATH, body, self.gzip).await?;
            if !answer.is_ok() {
                return Err(answer.retryable());
            }
            let (mut retry, mut why) = (Vec::new(), String::new());
            let verdicts = verdicts(&answer.body, documents.len())?;
            for (document, verdict) in documents.into_iter().zip(verdicts) {
                match verdict {
                    ErrorClass::Taken | ErrorClass::Exists => self.mark_written(document.cache_entry),
                    ErrorClass::Later(message) => {
                        why = message;
                        retry.push(document);
                    }
                    ErrorClass::Refused(message) | ErrorClass::Blocked(message) => {
                        return Err(SinkError::retryable(format!("a document that counts: {message}")));
                    }
                }
            }
            if retry.is_empty() {
                return Ok(());
            }
            retry_delays.next(&why).await?;
            documents = retry;
        }
    }

    fn documents(&self, layout: &Layout, mut accumulator: CountAccumulator) -> Vec<CountDocument> {
        accumulator.note_install();
        let mut documents = Vec::new();
        for (app, install, day) in &accumulator.visitors {
            let date = names::date(*day);
            if let Some(cache_entry) = self.cache_entry_if_new(&("uv", app, day, install), 0) {
                let mut lines =
                    action("create", &layout.visitor_index(&self.prefix, *day), &[app, &date, install], None);
                document::string(&mut lines, "{\"app_key\":", app);
                document::string(&mut lines, ",\"day\":", &date);
                document::string(&mut lines, ",\"install_id\":", install);
                documents.push(CountDocument { lines, cache_entry: Some(cache_entry) });
            }
        }
        for ((app, install), time) in &accumulator.installs {
            if let Some(cache_entry) = self.cache_entry_if_new(&("user", app, install), *time) {
                let version = (EARLIEST_WINS - time.clamp(&-EARLIEST_WINS, &EARLIEST_WINS), "external");
                let mut lines = action("index", &names::users(&self.prefix), &[app, install], Some(version));
                document::string(&mut lines, "{\"app_key\":", app);
                document::string(&mut lines, ",\"install_id\":", install);
                document::integer(&mut lines, ",\"first_time\":", *time);
                documents.push(CountDocument { lines, cache_entry: Some(cache_entry) });
            }
        }
        for ((app, user), (time, _, follows, event)) in &accumulator.followers {
            // Of two words at the same millisecond the later delivered counts.
            let version = ((*time).max(0), "external_gte");
            let mut lines = action("index", &names::followers(&self.prefix), &[app, user], Some(version));
            document::string(&mut lines, "{\"app_key\":", app);
            document::string(&mut lines, ",\"user\":", user);
            document::integer(&mut lines, ",\"following\":", *follows);
            document::integer(&mut lines, ",\"event_time\":", *time);
            document::string(&mut lines, ",\"event_id\":", event);
            documents.push(CountDocument { lines, cache_entry: None });
        }
        for document in &mut documents {
            document.lines.extend_from_slice(b"}\n");
        }
        documents
    }

    /// Returns the cache entry for `identity` with `time`, unless it was written with this time or an earlier one.
    fn cache_entry_if_new(&self, identity: &impl std::hash::Hash, time: i64) -> Option<(u128, i64)> {
        let (high, low) = (self.hashers.0.hash_one(identity), self.hashers.1.hash_one(identity));
        let key = u128::from(high) << 64 | u128::from(low);
        let mut written_ids = self.written_ids.lock().unwrap_or_else(PoisonError::into_inner);
        match written_ids.get(key) {
            Some(known) if known <= time => None,
            _ => Some((key, time)),
        }
    }

    fn mark_written(&self, cache_entry: Option<(u128, i64)>) {
        if let Some((key, time)) = cache_entry {
            self.written_ids.lock().unwrap_or_else(PoisonError::into_inner).put(key, time);
        }
    }
}

fn action(verb: &str, index: &str, id: &[&str], version: Option<(i64, &str)>) -> Vec<u8> {
    let mut lines = Vec::with_capacity(320);
    document::string(&mut lines, "{", verb);
    document::string(&mut lines, ":{\"_index\":", index);
    document::string(&mut lines, ",\"_id\":", &names::id(id));
    if let Some((version, kind)) = version {
        document::integer(&mut lines, ",\"version\":", version);
        document::string(&mut lines, ",\"version_type\":", kind);
    }
    lines.extend_from_slice(b"}}\n");
    lines
}

/// Bounded cache in two generations: when the current one is full it becomes the previous one, which is discarded.
#[derive(Default)]
struct WrittenIdCache {
    current: HashMap<u128, i64>,
    previous: HashMap<u128, i64>,
}

impl WrittenIdCache {
    fn get(&mut self, key: u128) -> Option<i64> {
        if let Some(value) = self.current.get(&key) {
            return Some(*value);
        }
        let value = self.previous.remove(&key)?;
        self.put(key, value);
        Some(value)
    }

    fn put(&mut self, key: u128, value: i64) {
        if self.current.len() >= MAX_CACHED_IDS {
            self.previous = std::mem::take(&mut self.current);
        }
        let kept = self.current.entry(key).or_insert(value);
        *kept = value.min(*kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_lately_is_remembered_and_memory_is_bounded() {
        let mut written_ids = WrittenIdCache::default();
        written_ids.put(u128::MAX, 7);
        for key in 0..3 * MAX_CACHED_IDS as u128 {
            written_ids.put(key, 0);
            assert_eq!(written_ids.get(u128::MAX), Some(7));
        }
        assert!(written_ids.current.len() + written_ids.previous.len() <= 2 * MAX_CACHED_IDS);
        assert_eq!(written_ids.get(0), None);
        written_ids.put(u128::MAX, 9);
        assert_eq!(written_ids.get(u128::MAX), Some(7), "the earlier time stays");
    }

    #[test]
    fn a_visit_belongs_to_the_day_of_the_apps_clocks() {
        let settings = Settings::of_test("http://127.0.0.1:1", "p", "");
        let zones = [("sh".to_owned(), "Asia/Shanghai".to_owned()), ("ny".to_owned(), "America/New_York".to_owned())];
        let mut accumulator = Counts::new(&settings, &zones).unwrap().accumulator();
        let noon = 1_431_864_000_000; // 2015-05-17T12:00:00Z
        for (app, millis, date) in [
            ("sh", noon, "2015-05-17"),
            ("sh", noon + 4 * 3_600_000 - 1, "2015-05-17"),
            ("sh", noon + 4 * 3_600_000, "2015-05-18"),
            ("ny", noon - 8 * 3_600_000 - 1, "2015-05-16"),
            ("ny", noon - 8 * 3_600_000, "2015-05-17"),
            ("other", noon + 12 * 3_600_000 - 1, "2015-05-17"),
            // Clocks went forward on 8 March 2015.
            ("ny", 1_425_790_799_999, "2015-03-07"),
            ("ny", 1_425_790_800_000, "2015-03-08"),
            ("ny", 1_425_873_599_999, "2015-03-08"),
            ("ny", 1_425_873_600_000, "2015-03-09"),
        ] {
            assert_eq!(names::date(accumulator.day(app, millis)), date, "{app} {millis}");
        }
        assert!(matches!(
            Counts::new(&settings, &[("a".into(), "Mars/Olympus".into())]),
            Err(SinkError::Misconfigured { message }) if message.contains("Mars/Olympus")
        ));
    }

    #[test]
    fn a_batch_gives_one_document_for_each_thing_counted() {
        let settings = Settings::of_test("http://127.0.0.1:1", "p", "");
        let counts = Counts::new(&settings, &[]).unwrap();
        let event = |id: u64, theme: &str, code: &str, time: i64, user: &str| serde_json::json!({"event_id": format!("e{id}"), "seq": id, "theme": theme, "code": code, "event_time": time, "ts": 0, "user_id": user});
        let record = serde_json::json!({"app_key": "a", "batch_id": "b", "install_id": "i", "received_at": 1, "events": [
            event(1, "view", "v", 50, ""), event(2, "view", "v", 40, ""), event(3, "custom", "follow", 60, "u"), event(4, "custom", "unfollow", 60, "u"),
            event(5, "custom", "follow", 59, "u"), event(6, "custom", "follow", 1, "")]})
        .to_string();
        let record: Record<'_> = serde_json::from_str(&record).unwrap();
        let mut accumulator = counts.accumulator();
        for (event, position) in record.events.iter().zip(1..) {
            accumulator.observe(&record, event, position);
        }
        let documents = counts.documents(&Layout::default(), accumulator);
        let lines: Vec<String> =
            documents.iter().map(|document| String::from_utf8(document.lines.clone()).unwrap()).collect();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains(r#""_index":"p-uv-1970","_id":"a|1970-01-01|i""#), "{}", lines[0]);
        assert!(
            lines[1].contains(r#""_id":"a|i","version":1152921504606846975,"version_type":"external""#),
            "{}",
            lines[1]
        );
        assert!(lines[1].contains(r#""first_time":1}"#), "{}", lines[1]);
        let follower = lines.iter().find(|line| line.contains("\"a|u\"")).unwrap();
        assert!(follower.contains(r#""following":false,"event_time":60,"event_id":"e4""#), "{follower}");
        assert!(
            lines.iter().any(|line| line.contains("\"_index\":\"p-followers\",\"_id\":\"a|i\"")),
            "without a user the install counts"
        );
    }
}
