//! What happens: one step after the other.

use super::books::{Cause, Outcome};
use super::disk::Fate;
use super::fault::Lasting;
use super::server::{BAD, HUGE, POISON, Server};
use super::{DRAIN, Flight, Report, World, context};
use crate::transport::{Task, UploadRequest, UploadResult};
use crate::{Consent, Id, Input, Theme};

/// Common properties of this many bytes are large beside everything else here.
const LARGE: usize = 1_500;

impl World {
    pub(super) fn step(&mut self) {
        match self.random.up_to(20) {
            0..=6 => self.track(),
            7..=11 => self.poll(),
            12..=14 => self.land(),
            15 => self.pass_time(),
            16 => self.jump_or_sleep(),
            17 => self.host_event(),
            18 if self.trouble.kills => self.kill(),
            19 if self.trouble.lasting => self.break_something(),
            _ => self.trouble_ahead(),
        }
        if self.disk.0.borrow().killed {
            self.kill();
        }
        self.age_fault();
    }

    fn jump_or_sleep(&mut self) {
        if self.random.up_to(1) == 0 { self.jump() } else { self.sleep() }
    }

    fn track(&mut self) {
        let theme = Theme::ALL[self.random.up_to(10) as usize];
        let code = match self.random.up_to(29) {
            0 => BAD,
            1 => POISON,
            2 => HUGE,
            _ => "fine",
        };
        let true_ts = self.chance(5).then_some(1_400_000_000_000);
        self.track_event(theme, code, true_ts);
        if self.chance(30) {
            assert!(!self.track_event(theme, "", true_ts), "an empty code is refused");
        }
    }

    /// `false` if the client refused it.
    pub(super) fn track_plain(&mut self) -> bool {
        self.track_event(Theme::Click, "fine", None)
    }

    fn track_event(&mut self, theme: Theme, code: &str, true_ts: Option<i64>) -> bool {
        let pad = "x".repeat(self.random.up_to(99) as usize);
        let props = format!(r#"{{"version":"{}","pad":"{pad}"}}"#, self.version);
        let (now, session) = (self.now(), self.client.session_index());
        let tracked = self.client.track(now, Input { theme, code, props: &props, page: None, true_ts });
        if true_ts.is_some() {
            assert_eq!(self.client.session_index(), session, "a true time starts and ends no session");
        }
        match &tracked {
            Ok(id) => {
                self.report.tracked += 1;
                self.tracked.insert(*id, self.client.install_id());
                if self.client.consent() == Consent::Granted {
                    self.enter(*id);
                } else {
                    self.accounts.held.push(*id);
                }
            }
            Err(error) => self.refuse(error),
        }
        self.settle(&Cause::Recording);
        tracked.is_ok()
    }

    pub(super) fn poll(&mut self) {
        let task = self.client.poll_task(self.now());
        self.settle(&Cause::Sending);
        if self.disk.0.borrow().killed {
            // The process died in the middle: nothing of this gets out.
            return;
        }
        let wake = self.client.next_wake();
        match task {
            Some(Task::Upload(request)) => {
                assert_eq!(self.client.consent(), Consent::Granted, "nothing is sent without consent");
                self.report.uploads += 1;
                let events = Server::ids(&request.body);
                for id in &events {
                    let outcome = self.accounts.books.events.get(id);
                    assert_eq!(outcome, Some(&Outcome::Waiting), "only what waits is sent: {id}");
                }
                self.check_sources(&request, &events);
                self.synchronise();
                self.accounts.sent.extend(&events);
                self.accounts.sent_now.extend(&events);
                self.send(&request, events);
            }
            None => assert!(wake.is_none_or(|at| at > self.mono), "no work, and yet awake: {wake:?} at {}", self.mono),
        }
    }

    /// Neither an event nor a batch is sent that is not on the disk, unless the disk has refused it twice in a row or the
    /// medium has lost it.
    fn check_sources(&mut self, request: &UploadRequest, events: &[Id]) {
        let contents = &mut *self.disk.0.borrow_mut();
        let fails = self.client.store_fails();
        let there = contents.batches().iter().any(|batch| batch.id == request.batch_id);
        assert!(
            there || fails || contents.lost_batches.contains(&request.batch_id),
            "a batch is stored before it is sent"
        );
        for id in events {
            if !contents.present.values().any(|other| other == id) {
                assert!(fails, "sent before it was stored, or after it was deleted: {id}");
                self.report.from_memory += 1;
            }
        }
    }

    /// The network: what becomes of a request.
    fn send(&mut self, request: &UploadRequest, events: Vec<Id>) {
        let lasting = self.fault.map(|fault| fault.kind).filter(|_| !self.healed);
        let fault = if self.healed { 99 } else { self.random.up_to(19) };
        let statuses = [503, 500, 502, 429, 408, 404, 405, 415, 301, 204, 400, 413];
        let mut genuine = false;
        let (status, body) = match (lasting, fault) {
            (Some(Lasting::NetworkAway), _) | (_, 0) => (None, String::new()),
            (Some(Lasting::Answers(status)), _) => (Some(status), String::new()),
            (_, 1) => (Some(200), String::from("<html>Welcome to the airport</html>")),
            (_, 2) => (Some(200), String::new()),
            // Of somebody on the way, who may well answer as only the collector should.
            (_, 3) => (Some(statuses[self.random.up_to(11) as usize]), String::new()),
            (_, 4) => (Some([401, 403][self.random.up_to(1) as usize]), String::new()),
            (_, 5 | 6) => {
                self.server.take(&request.body);
                ((fault == 6).then_some(504), String::new())
            }
            (_, 8) => return,
            _ => {
                if fault == 7 {
                    self.server.take(&request.body);
                }
                genuine = true;
                let (status, body) = self.server.take(&request.body);
                (Some(status), body)
            }
        };
        self.flights.push(Flight { batch: request.batch_id, events, status, body, genuine });
    }

    /// Some answer arrives, not necessarily the first sent, perhaps twice.
    fn land(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let at = self.random.up_to(self.flights.len() as u64 - 1) as usize;
        let flight = self.flights.remove(at);
        let times = if self.chance(9) { 2 } else { 1 };
        for _ in 0..times {
            let retry_after_ms = self.chance(3).then(|| self.random.up_to(5_000));
            let result = match flight.status {
                Some(status) => UploadResult::Answer { status, retry_after_ms, body: &flight.body },
                None => UploadResult::Failed,
            };
            self.client.on_result(self.now(), flight.batch, result);
            self.settle(&Cause::Answer(&flight));
        }
    }

    fn host_event(&mut self) {
        let now = self.now();
        match self.random.up_to(10) {
            0 => self.client.background(now),
            1 => self.client.foreground(now),
            2 => self.client.flush(now),
            3 => assert_eq!(self.client.identify(now, "user"), Ok(())),
            4 => self.client.logout(now),
            5 => {
                let text = "c".repeat(if self.chance(3) { LARGE } else { 2 });
                assert_eq!(self.client.register(now, &format!(r#"{{"channel":"{text}"}}"#)), Ok(()));
            }
            6 => self.client.clear_registered(now),
            7 => {
                self.version += 1;
                self.client.set_context(&context(self.version));
            }
            8 => self.persist(),
            _ if self.trouble.consent => self.decide(),
            _ => {}
        }
        self.settle(&Cause::Other);
    }

    /// The host expects to be killed.
    fn persist(&mut self) {
        let done = self.client.commit(self.now());
        self.settle(&Cause::Other);
        if done && self.client.consent() == Consent::Granted {
            let (contents, accounts) = (self.disk.0.borrow(), &self.accounts);
            for (seq, id) in &accounts.places {
                let there = contents.present.get(seq) == Some(id) || accounts.damaged.contains(id);
                assert!(there, "everything is stored, the client says, but not {id}");
            }
        }
    }

    fn trouble_ahead(&mut self) {
        if self.trouble.damage && self.chance(3) {
            return self.damage();
        }
        let fate = match self.random.up_to(2) {
            1 if self.trouble.kills => Fate::KilledBefore,
            2 if self.trouble.kills => Fate::KilledAfter,
            _ => Fate::Fails,
        };
        let contents = &mut *self.disk.0.borrow_mut();
        contents.fate = fate;
        contents.delay = self.random.up_to(2);
        contents.times = 1 + self.random.up_to(5);
    }

    /// First the network heals and the user agrees, then the disk: everything must be delivered, and the client must
    /// rest.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.disk.0.borrow_mut().fate = Fate::Works;
        if self.trouble.consent {
            self.set_consent(Consent::Granted);
        }
        let broken = self.fault.map(|fault| fault.kind).filter(|kind| kind.is_of_the_disk());
        if matches!(broken, Some(Lasting::DiskFull | Lasting::DiskRefuses)) {
            self.client.flush(self.now());
            self.drain(|world| world.client.ledger().queued == 0);
        }
        self.mend();
        self.client.flush(self.now());
        self.drain(|world| world.client.next_wake().is_none());
    }

    fn drain(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..DRAIN {
            self.poll();
            if !self.flights.is_empty() {
                self.land();
                continue;
            }
            if done(self) {
                return;
            }
            let Some(wake) = self.client.next_wake() else { panic!("nobody will wake the client: {:?}", self.report) };
            self.pass(wake.saturating_sub(self.mono));
        }
        panic!("the client never rests: {:?} {:?}", self.client.ledger(), Report { ..self.report });
    }
}
