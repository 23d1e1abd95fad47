//! Sessions of use. A session ends after `session_idle_ms` without an event, or when the app returns after
//! `session_background_ms` in the background or not running.
//!
//! An event with a true time of its own is no evidence of current use, so it neither starts, extends nor ends the
//! current session. It belongs to the current session if its time is within `session_idle_ms` of the last activity
//! there. Otherwise such events form sessions of their own, by their own times.

use subway_protocol::codec::encode::Session;
use subway_protocol::json::{JsonError, ObjectWriter, Reader};

use crate::random::Random;
use crate::store::read_count;
use crate::{Config, Id, Now};

/// One session, current or of backdated events.
#[derive(Clone, Debug, Default)]
struct SessionState {
    /// Number within the install, from 1; 0 before the first.
    index: u64,
    id: Option<Id>,
    events: u64,
    /// Time of the last activity: the wall clock, or a true time.
    last: i64,
}

impl SessionState {
    /// Returns the next position in the session; `None` if it has ended.
    fn next_position(&mut self) -> Option<Session> {
        let id = self.id?;
        self.events += 1;
        Some(Session { id, index: self.index, event: self.events })
    }

    fn start(index: u64, time: i64, random: &mut Random) -> Self {
        Self { index, id: Some(random.id(time)), events: 0, last: time }
    }

    fn is_within_idle_time(&self, time: i64, config: &Config) -> bool {
        self.id.is_some() && time.abs_diff(self.last) < config.session_idle_ms
    }
}

/// The current session, and the one of events with a true time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    current: SessionState,
    past: SessionState,
    /// Monotonic time of the last activity in this run.
    last_mono: Option<u64>,
    /// Monotonic time at which the app went to the background.
    backgrounded_at: Option<u64>,
}

impl Sessions {
    /// Assigns an event to a session, starting a new one if the current one has ended.
    ///
    /// `true_ts`: the event's own time in milliseconds since the epoch, if it does not happen now (imports).
    pub(crate) fn next(
        &mut self,
        now: Now,
        true_ts: Option<i64>,
        config: &Config,
        random: &mut Random,
    ) -> Option<Session> {
        let index = self.current.index.max(self.past.index) + 1;
        let Some(time) = true_ts else {
            let over = match self.last_mono {
                Some(mono) => now.mono.saturating_sub(mono) >= config.session_idle_ms,
                None => elapsed_since(self.current.last, now.wall) >= config.session_background_ms,
            };
            if over || self.current.id.is_none() {
                self.current = SessionState::start(index, now.wall, random);
            }
            self.current.last = now.wall;
            self.last_mono = Some(now.mono);
            return self.current.next_position();
        };
        if self.current.is_within_idle_time(time, config) {
            return self.current.next_position();
        }
        if !self.past.is_within_idle_time(time, config) {
            self.past = SessionState::start(index, time, random);
        }
        self.past.last = time;
        self.past.next_position()
    }

    /// Returns the number of the current session; 0 before the first.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn current_index(&self) -> u64 {
        self.current.index
    }

    /// Notes that the app went to the background.
    pub(crate) fn background(&mut self, now: Now) {
        self.backgrounded_at = Some(now.mono);
    }

    /// Notes that the app came to the foreground; ends the session after too long a time in the background.
    pub(crate) fn foreground(&mut self, now: Now, config: &Config) {
        if let Some(backgrounded_at) = self.backgrounded_at.take()
            && now.mono.saturating_sub(backgrounded_at) >= config.session_background_ms
        {
            self.current.id = None;
        }
    }

    /// Appends the sessions as JSON, for the store.
    pub(crate) fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::new(out);
        write(&self.current, &mut object);
        if self.past.index > 0 {
            object.object("past", |inner| write(&self.past, inner));
        }
        object.end();
    }

    /// Reads the output of [`Sessions::write`] of an earlier run.
    ///
    /// # Errors
    /// If the text has another form.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let mut sessions = Self::default();
        reader.object(|name, reader| {
            if name == "past" {
                return reader.object(|name, reader| read(&mut sessions.past, name, reader));
            }
            read(&mut sessions.current, name, reader)
        })?;
        Ok(sessions)
    }
}

fn write(session: &SessionState, object: &mut ObjectWriter<'_>) {
    object.integer("index", session.index as i64);
    if let Some(id) = session.id {
        object.id("id", id);
    }
    object.integer("events", session.events as i64);
    object.integer("last", session.last);
}

fn read(session: &mut SessionState, name: &str, reader: &mut Reader<'_>) -> Result<(), JsonError> {
    match name {
        "index" => session.index = read_count(reader)?,
        "id" => session.id = Id::parse(&reader.string()?),
        "events" => session.events = read_count(reader)?,
        "last" => session.last = reader.integer()?,
        _ => reader.skip()?,
    }
    Ok(())
}

/// Returns the time that the app was not running, milliseconds. Infinite if the wall clock went back, because the time
/// is then unknown.
fn elapsed_since(last: i64, now: i64) -> u64 {
    u64::try_from(now.saturating_sub(last)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { wall: 1_000_000 + ms as i64, mono: ms }
    }

    const HOUR: i64 = 3_600_000;

    struct Bench {
        sessions: Sessions,
        config: Config,
        random: Random,
    }

    impl Bench {
        fn new() -> Self {
            Self { sessions: Sessions::default(), config: Config::default(), random: Random::new(b"", at(0), 0) }
        }

        fn event(&mut self, now: Now, true_ts: Option<i64>) -> (u64, u64) {
            let session = self.sessions.next(now, true_ts, &self.config, &mut self.random).unwrap();
            (session.index, session.event)
        }

        fn restart(&mut self) {
            let mut text = String::new();
            self.sessions.write(&mut text);
            self.sessions = Sessions::read(&mut Reader::new(&text)).unwrap();
        }
    }

    #[test]
    fn half_an_hour_without_an_event_ends_a_session() {
        let mut bench = Bench::new();
        assert_eq!(bench.event(at(0), None), (1, 1));
        assert_eq!(bench.event(at(1_799_999), None), (1, 2));
        assert_eq!(bench.event(at(1_799_999 + 1_800_000), None), (2, 1));
    }

    #[test]
    fn a_jump_of_the_wall_clock_does_not_end_a_session() {
        let mut bench = Bench::new();
        bench.event(at(0), None);
        assert_eq!(bench.event(Now { wall: 0, mono: 10 }, None), (1, 2));
        assert_eq!(bench.event(Now { wall: i64::MAX, mono: 20 }, None), (1, 3));
    }

    #[test]
    fn coming_back_after_half_a_minute_begins_a_session() {
        let mut bench = Bench::new();
        bench.event(at(0), None);
        bench.sessions.background(at(10));
        bench.sessions.foreground(at(30_009), &bench.config);
        assert_eq!(bench.event(at(30_009), None), (1, 2));
        bench.sessions.background(at(40_000));
        bench.sessions.foreground(at(70_000), &bench.config);
        assert_eq!(bench.event(at(70_001), None), (2, 1));
    }

    #[test]
    fn a_quick_restart_continues_a_session_and_a_slow_one_does_not() {
        let mut bench = Bench::new();
        bench.event(at(0), None);
        bench.restart();
        assert_eq!(bench.event(Now { mono: 0, ..at(29_999) }, None), (1, 2));
        bench.restart();
        assert_eq!(bench.event(Now { mono: 0, ..at(29_999 + 30_000) }, None), (2, 1));
        bench.restart();
        assert_eq!(bench.event(Now { mono: 0, ..at(0) }, None), (3, 1), "a clock that went back");
    }

    #[test]
    fn imported_events_form_sessions_by_their_own_times() {
        let mut bench = Bench::new();
        assert_eq!(bench.event(at(0), Some(0)), (1, 1));
        assert_eq!(bench.event(at(1), Some(60_000)), (1, 2));
        bench.restart();
        assert_eq!(bench.event(at(2), Some(61_000)), (1, 3));
        assert_eq!(bench.event(at(2), Some(61_000 + 1_800_000)), (2, 1));
    }

    #[test]
    fn a_backdated_event_does_not_affect_the_current_session() {
        for other in [at(0).wall - 24 * HOUR, at(0).wall + 24 * HOUR, at(0).wall - HOUR] {
            let mut bench = Bench::new();
            assert_eq!(bench.event(at(0), None), (1, 1));
            assert_eq!(bench.event(at(10), Some(other)), (2, 1), "a session of its own");
            assert_eq!(bench.event(at(20), None), (1, 2), "the current one goes on");
            bench.event(at(1_000_000), Some(other));
            assert_eq!(bench.event(at(20 + 1_800_000), None), (3, 1), "it was not extended");
        }
        let mut bench = Bench::new();
        bench.event(at(0), Some(0));
        assert_eq!(bench.event(at(1), None), (2, 1), "nor started");
    }

    #[test]
    fn a_recent_backdated_event_joins_but_does_not_extend_a_session() {
        let mut bench = Bench::new();
        bench.event(at(0), None);
        assert_eq!(bench.event(at(1_700_000), Some(at(1_700_000).wall)), (1, 2));
        assert_eq!(bench.event(at(1_800_000), None), (2, 1));
    }
}
