//! Sessions: a stretch of use. One ends after `session_idle_ms` without an event, or when the app comes back after
//! `session_background_ms` in the background (or after as long a time as not running at all).

use subway_protocol::codec::encode::Session;
use subway_protocol::json::{JsonError, ObjectWriter, Reader};

use crate::random::Random;
use crate::{Config, Id, Now};

/// The current session and when it was last used.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    /// Number of the current session; 0 before the first.
    index: u64,
    id: Option<Id>,
    events: u64,
    /// Time of the last activity: wall clock, or the true time of an event that brought one.
    last: i64,
    /// Monotonic time of the last activity, if it happened in this run and by the host's clock.
    last_mono: Option<u64>,
    /// Since when the app is in the background, monotonic.
    hidden: Option<u64>,
    /// Not used yet since the client was opened.
    cold: bool,
}

impl Sessions {
    /// Takes the place of an event in its session, beginning a new one where the rules say so.
    ///
    /// `true_ts`: the event's own time in milliseconds since the epoch, if it does not happen now (imports): then the
    /// idle rule goes by these times.
    pub fn next(&mut self, now: Now, true_ts: Option<i64>, config: &Config, random: &mut Random) -> Session {
        let time = true_ts.unwrap_or(now.wall);
        let over = match (true_ts, self.last_mono) {
            (None, Some(mono)) => now.mono.saturating_sub(mono) >= config.session_idle_ms,
            (None, None) if self.cold => away(self.last, time) >= config.session_background_ms,
            _ => time.abs_diff(self.last) >= config.session_idle_ms,
        };
        let id = match self.id {
            Some(id) if !over => id,
            _ => self.begin(time, random),
        };
        self.events += 1;
        self.used(now, true_ts);
        Session { id, index: self.index, event: self.events }
    }

    fn begin(&mut self, time: i64, random: &mut Random) -> Id {
        let id = random.id(time);
        self.index += 1;
        self.events = 0;
        self.id = Some(id);
        id
    }

    fn used(&mut self, now: Now, true_ts: Option<i64>) {
        self.cold = false;
        self.last = true_ts.unwrap_or(now.wall);
        self.last_mono = if true_ts.is_some() { None } else { Some(now.mono) };
    }

    /// The app left the screen.
    pub fn background(&mut self, now: Now) {
        self.hidden = Some(now.mono);
    }

    /// The app came back; the session ends if it was away too long.
    pub fn foreground(&mut self, now: Now, config: &Config) {
        if let Some(hidden) = self.hidden.take()
            && now.mono.saturating_sub(hidden) >= config.session_background_ms
        {
            self.id = None;
        }
    }

    /// Appends the session as JSON, for the store.
    pub fn write(&self, out: &mut String) {
        let mut object = ObjectWriter::new(out);
        object.integer("index", self.index as i64);
        if let Some(id) = self.id {
            object.id("id", id);
        }
        object.integer("events", self.events as i64);
        object.integer("last", self.last);
        object.end();
    }

    /// Reads what [`Sessions::write`] wrote in an earlier run.
    ///
    /// # Errors
    /// If the text is something else.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let mut sessions = Self { cold: true, ..Self::default() };
        reader.object(|name, reader| {
            match name {
                "index" => sessions.index = reader.integer()? as u64,
                "id" => sessions.id = Id::parse(&reader.string()?),
                "events" => sessions.events = reader.integer()? as u64,
                "last" => sessions.last = reader.integer()?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        Ok(sessions)
    }
}

/// How long the app was not running, milliseconds. A wall clock that went back says nothing: counted as for ever.
fn away(last: i64, now: i64) -> u64 {
    u64::try_from(now.saturating_sub(last)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { wall: 1_000_000 + ms as i64, mono: ms }
    }

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
            let session = self.sessions.next(now, true_ts, &self.config, &mut self.random);
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
        assert_eq!(bench.event(at(2), Some(60_000 + 1_800_000)), (2, 1));
    }
}
