//! Documents whose identity is what they count, so that a plain count of them is exact: one per app, local day and install
//! for visitors, one per app and install for new users, one per app and user for followers.

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
use super::layout::{Layout, Layouts, Wanted};
use super::names;
use super::pause::Pauses;
use super::server::Server;
use crate::config::{BulkCompression as Compression, Elasticsearch as Settings};
use crate::record::{Event, Record};

/// Theme of the events that make a visitor.
const VIEW: &str = "view";
/// Documents in one request. With some 300 bytes each it has a megabyte.
const DOCUMENTS: usize = 4000;
/// Identities that are remembered as written, in each of two generations. A store that has them answers 409 to each, which
/// costs it more than these 50 bytes cost here: at most some 20 MB.
const REMEMBERED: usize = 200_000;
/// Versions of the documents of new users count downwards from here, so that the earliest event wins: 2^60, beyond every
/// time in milliseconds and below the largest version, 2^63.
const EARLIEST_WINS: i64 = 1 << 60;

/// The days of the apps.
struct Zones {
    zones: HashMap<String, TimeZone>,
}

impl Zones {
    /// The offset from UTC at `millis` and the range in which it holds, all in milliseconds.
    fn offset(&self, app: &str, millis: i64) -> (i64, i64, i64) {
        let (Some(zone), Ok(at)) = (self.zones.get(app), Timestamp::from_millisecond(millis)) else {
            return (0, millis, millis);
        };
        let offset = i64::from(zone.to_offset(at).seconds()) * 1000;
        let until = zone.following(at).next().map_or(i64::MAX, |change| change.timestamp().as_millisecond() - 1);
        (offset, millis, until)
    }
}

/// What is to be counted of a batch.
pub(super) struct Collector {
    zones: Arc<Zones>,
    follow: Arc<(String, String)>,
    /// The app, the range of times and the offset of the last event.
    offset: (String, i64, i64, i64),
    /// The app, the install and the local day of the last view.
    last_view: (String, String, i64),
    /// The app, the install and the earliest time of the events seen in a row.
    last_install: (String, String, i64),
    visitors: HashSet<(String, String, i64)>,
    /// Months that have visitors, and whether any of these is near its arrival.
    months: BTreeMap<String, bool>,
    installs: HashMap<(String, String), i64>,
    /// By app and user: time and position of the last word, whether it was to follow, and the event's ID.
    followers: HashMap<(String, String), (i64, u64, bool, String)>,
}

impl Collector {
    /// Notes one event.
    pub(super) fn see(&mut self, record: &Record<'_>, event: &Event<'_>, position: u64) {
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
            let word = (time, position, follows, event.event_id.to_string());
            let latest = self.followers.entry((app.to_owned(), user.to_owned())).or_insert_with(|| word.clone());
            if (word.0, word.1) > (latest.0, latest.1) {
                *latest = word;
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

    /// The day since the epoch that the clocks of `app` showed.
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

/// One document to be written.
struct Document {
    lines: Vec<u8>,
    /// What to remember when it is written.
    key: Option<(u128, i64)>,
}

/// Writes the documents, each as seldom as possible.
pub(super) struct Counts {
    prefix: String,
    gzip: bool,
    zones: Arc<Zones>,
    follow: Arc<(String, String)>,
    remembered: Mutex<Remembered>,
    hashers: (RandomState, RandomState),
}

impl Counts {
    /// # Errors
    /// [`SinkError::Misconfigured`] if a time zone is not known.
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
            zones: Arc::new(Zones { zones: known }),
            follow: Arc::new((settings.follow_code().to_owned(), settings.unfollow_code().to_owned())),
            remembered: Mutex::default(),
            hashers: (RandomState::new(), RandomState::new()),
        })
    }

    /// An empty collector.
    pub(super) fn collector(&self) -> Collector {
        Collector {
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

    /// Writes what was collected and is not known to be there.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if not everything could be written.
    pub(super) async fn write(
        &self,
        server: &Server,
        layouts: &Layouts,
        collected: Collector,
    ) -> Result<(), SinkError> {
        let wanted = Wanted { months: collected.months.clone(), ..Wanted::default() };
        let layout = layouts.decide(server, &wanted).await?;
        let mut documents = self.documents(&layout, collected);
        while !documents.is_empty() {
            let rest = documents.split_off(documents.len().min(DOCUMENTS));
            self.write_some(server, documents).await?;
            documents = rest;
        }
        Ok(())
    }

    async fn write_some(&self, server: &Server, mut documents: Vec<Document>) -> Result<(), SinkError> {
        let mut pauses = Pauses::default();
        loop {
            let body = pack(documents.iter().flat_map(|document| document.lines.iter().copied()).collect(), self.gzip)?;
            let answer = server.send_lines(bulk::PATH, body, self.gzip).await?;
            if !answer.is_ok() {
                return Err(answer.retryable());
            }
            let (mut later, mut why) = (Vec::new(), String::new());
            let verdicts = verdicts(&answer.body, documents.len())?;
            for (document, verdict) in documents.into_iter().zip(verdicts) {
                match verdict {
                    ErrorClass::Taken | ErrorClass::Exists => self.remember(document.key),
                    ErrorClass::Later(message) => {
                        why = message;
                        later.push(document);
                    }
                    ErrorClass::Refused(message) | ErrorClass::Blocked(message) => {
                        return Err(SinkError::retryable(format!("a document that counts: {message}")));
                    }
                }
            }
            if later.is_empty() {
                return Ok(());
            }
            pauses.next(&why).await?;
            documents = later;
        }
    }

    fn documents(&self, layout: &Layout, mut collected: Collector) -> Vec<Document> {
        collected.note_install();
        let mut documents = Vec::new();
        for (app, install, day) in &collected.visitors {
            let date = names::date(*day);
            if let Some(key) = self.unknown(&("uv", app, day, install), 0) {
                let mut lines = action("create", &layout.visitors(&self.prefix, *day), &[app, &date, install], None);
                document::string(&mut lines, "{\"app_key\":", app);
                document::string(&mut lines, ",\"day\":", &date);
                document::string(&mut lines, ",\"install_id\":", install);
                documents.push(Document { lines, key: Some(key) });
            }
        }
        for ((app, install), time) in &collected.installs {
            if let Some(key) = self.unknown(&("user", app, install), *time) {
                let version = (EARLIEST_WINS - time.clamp(&-EARLIEST_WINS, &EARLIEST_WINS), "external");
                let mut lines = action("index", &names::users(&self.prefix), &[app, install], Some(version));
                document::string(&mut lines, "{\"app_key\":", app);
                document::string(&mut lines, ",\"install_id\":", install);
                document::integer(&mut lines, ",\"first_time\":", *time);
                documents.push(Document { lines, key: Some(key) });
            }
        }
        for ((app, user), (time, _, follows, event)) in &collected.followers {
            // Of two words at the same millisecond the later delivered counts.
            let version = ((*time).max(0), "external_gte");
            let mut lines = action("index", &names::followers(&self.prefix), &[app, user], Some(version));
            document::string(&mut lines, "{\"app_key\":", app);
            document::string(&mut lines, ",\"user\":", user);
            document::integer(&mut lines, ",\"following\":", *follows);
            document::integer(&mut lines, ",\"event_time\":", *time);
            document::string(&mut lines, ",\"event_id\":", event);
            documents.push(Document { lines, key: None });
        }
        for document in &mut documents {
            document.lines.extend_from_slice(b"}\n");
        }
        documents
    }

    /// What to remember of `identity` with `time`, unless it was written with this time or an earlier one.
    fn unknown(&self, identity: &impl std::hash::Hash, time: i64) -> Option<(u128, i64)> {
        let (high, low) = (self.hashers.0.hash_one(identity), self.hashers.1.hash_one(identity));
        let key = u128::from(high) << 64 | u128::from(low);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match remembered.get(key) {
            Some(known) if known <= time => None,
            _ => Some((key, time)),
        }
    }

    fn remember(&self, key: Option<(u128, i64)>) {
        if let Some((key, time)) = key {
            self.remembered.lock().unwrap_or_else(PoisonError::into_inner).put(key, time);
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

/// A bounded memory: when the young generation is full it becomes the old one, and the old one is forgotten.
#[derive(Default)]
struct Remembered {
    young: HashMap<u128, i64>,
    old: HashMap<u128, i64>,
}

impl Remembered {
    fn get(&mut self, key: u128) -> Option<i64> {
        if let Some(value) = self.young.get(&key) {
            return Some(*value);
        }
        let value = self.old.remove(&key)?;
        self.put(key, value);
        Some(value)
    }

    fn put(&mut self, key: u128, value: i64) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        let kept = self.young.entry(key).or_insert(value);
        *kept = value.min(*kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_lately_is_remembered_and_memory_is_bounded() {
        let mut remembered = Remembered::default();
        remembered.put(u128::MAX, 7);
        for key in 0..3 * REMEMBERED as u128 {
            remembered.put(key, 0);
            assert_eq!(remembered.get(u128::MAX), Some(7));
        }
        assert!(remembered.young.len() + remembered.old.len() <= 2 * REMEMBERED);
        assert_eq!(remembered.get(0), None);
        remembered.put(u128::MAX, 9);
        assert_eq!(remembered.get(u128::MAX), Some(7), "the earlier time stays");
    }

    #[test]
    fn a_visit_belongs_to_the_day_of_the_apps_clocks() {
        let settings = Settings::of_test("http://127.0.0.1:1", "p", "");
        let zones = [("sh".to_owned(), "Asia/Shanghai".to_owned()), ("ny".to_owned(), "America/New_York".to_owned())];
        let mut collector = Counts::new(&settings, &zones).unwrap().collector();
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
            assert_eq!(names::date(collector.day(app, millis)), date, "{app} {millis}");
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
        let mut collector = counts.collector();
        for (event, position) in record.events.iter().zip(1..) {
            collector.see(&record, event, position);
        }
        let documents = counts.documents(&Layout::default(), collector);
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
