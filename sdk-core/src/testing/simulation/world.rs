//! What happens: one step after the other.

use super::disk::Fate;
use super::fault::Lasting;
use super::server::{BAD, POISON, Server};
use super::{DRAIN, Flight, Report, Tracked, World, context, open};
use crate::store::{Key, Store};
use crate::transport::{Task, UploadRequest, UploadResult};
use crate::{Consent, Input, Theme};

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
            _ => "fine",
        };
        let true_ts = self.chance(5).then_some(1_400_000_000_000);
        self.track_event(theme, code, true_ts);
        if self.chance(30) {
            let refused = Input { theme, code: "", props: "", page: None, true_ts };
            assert!(self.client.track(self.now(), refused).is_err(), "an empty code is refused");
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
        if let Ok(id) = tracked {
            self.report.tracked += 1;
            self.tracked.insert(id, Tracked { install: self.client.install_id() });
        }
        tracked.is_ok()
    }

    pub(super) fn poll(&mut self) {
        let task = self.client.poll_task(self.now());
        if self.disk.0.borrow().killed {
            // The process died in the middle: nothing of this gets out.
            return;
        }
        let wake = self.client.next_wake();
        match task {
            Some(Task::Upload(request)) => {
                assert_eq!(self.client.consent(), Consent::Granted, "nothing is sent without consent");
                self.report.uploads += 1;
                self.check_sources(&request);
                self.send(&request);
            }
            None => assert!(wake.is_none_or(|at| at > self.mono), "no work, and yet awake: {wake:?} at {}", self.mono),
        }
    }

    /// Nothing is sent that is not on the disk, unless the disk refused it.
    fn check_sources(&mut self, request: &UploadRequest) {
        let contents = &mut *self.disk.0.borrow_mut();
        for id in Server::ids(&request.body) {
            if !contents.present.values().any(|other| *other == id) {
                // Tracked while the disk kept refusing: it was not even asked.
                let refused = !contents.refused.insert(id) || self.client.store_fails();
                assert!(refused, "sent before it was stored, or after it was deleted: {id}");
                self.report.from_memory += 1;
            }
        }
    }

    /// The network: what becomes of a request.
    fn send(&mut self, request: &UploadRequest) {
        let batch = request.batch_id;
        let lasting = self.fault.map(|fault| fault.kind).filter(|_| !self.healed);
        let fault = if self.healed { 99 } else { self.random.up_to(19) };
        let (status, body) = match (lasting, fault) {
            (Some(Lasting::NetworkAway), _) | (_, 0) => (None, String::new()),
            (Some(Lasting::Answers(status)), _) => (Some(status), String::new()),
            (_, 1) => (Some(200), String::from("<html>Welcome to the airport</html>")),
            (_, 2) => (Some(200), String::new()),
            (_, 3) => {
                // Of somebody on the way, who may well answer as only the collector should.
                let statuses = [503, 500, 502, 429, 408, 404, 405, 415, 301, 204, 400, 413];
                (Some(statuses[self.random.up_to(11) as usize]), String::new())
            }
            (_, 4) => (Some([401, 403][self.random.up_to(1) as usize]), String::new()),
            (_, 5) => {
                self.server.take(&request.body);
                (None, String::new())
            }
            (_, 6) => {
                self.server.take(&request.body);
                (Some(504), String::new())
            }
            (_, 7) => {
                self.server.take(&request.body);
                let (status, body) = self.server.take(&request.body);
                (Some(status), body)
            }
            (_, 8) => return,
            _ => {
                let (status, body) = self.server.take(&request.body);
                (Some(status), body)
            }
        };
        self.flights.push(Flight { batch, status, body });
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
        }
    }

    fn host_event(&mut self) {
        let now = self.now();
        match self.random.up_to(8) {
            0 => self.client.background(now),
            1 => self.client.foreground(now),
            2 => self.client.flush(now),
            3 => assert_eq!(self.client.identify(now, "user"), Ok(())),
            4 => self.client.logout(now),
            5 => assert_eq!(self.client.register(now, r#"{"channel":"qr"}"#), Ok(())),
            6 => self.client.clear_registered(now),
            7 => {
                self.version += 1;
                self.client.set_context(&context(self.version));
            }
            _ if self.trouble.consent => self.decide(),
            _ => {}
        }
    }

    fn decide(&mut self) {
        let consent = [Consent::Granted, Consent::Denied, Consent::Unknown][self.random.up_to(2) as usize];
        if consent == Consent::Denied {
            self.report.withdrawals += 1;
            let contents = self.disk.0.borrow();
            self.to_wipe = contents.present.values().copied().collect();
        }
        let (before, install) = (self.client.ledger(), self.client.install_id());
        self.client.set_consent(self.now(), consent);
        if consent != Consent::Denied {
            return;
        }
        let after = self.client.ledger();
        let withdrawn = crate::DropReason::ConsentWithdrawn;
        assert_eq!(after.queued, 0, "a withdrawal wipes the queue");
        assert_eq!(after.dropped(withdrawn), before.dropped(withdrawn) + before.queued, "and counts it");
        let mut contents = self.disk.0.borrow_mut();
        if contents.refuses || contents.killed {
            return;
        }
        assert!(contents.present.is_empty(), "and the disk, also a full one");
        let mut left = String::new();
        assert_eq!(contents.store.scan(&mut |_, value| left += value), Ok(()));
        assert_ne!(self.client.install_id(), install);
        assert!(!left.contains(&install.text()), "nothing about the person is left: {left}");
    }

    fn trouble_ahead(&mut self) {
        let fate = match self.random.up_to(2) {
            1 if self.trouble.kills => Fate::KilledBefore,
            2 if self.trouble.kills => Fate::KilledAfter,
            _ => Fate::Fails,
        };
        self.disk.0.borrow_mut().fate = fate;
        self.server.batch_lost |= fate == Fate::Fails;
    }

    /// The process dies and is started again: what was not on the disk is gone, and so are the open requests.
    fn kill(&mut self) {
        self.report.kills += 1;
        {
            let contents = &mut *self.disk.0.borrow_mut();
            contents.killed = false;
            contents.fate = Fate::Works;
            let present: std::collections::BTreeSet<_> = contents.present.values().copied().collect();
            self.server.forgotten.extend(contents.refused.difference(&present));
        }
        self.check_deletions();
        // A withdrawal that did not reach the disk is undone; the host has to ask again.
        self.to_wipe.clear();
        self.flights.clear();
        if self.trouble.damage && self.chance(3) {
            self.damage();
        }
        self.mono = self.random.up_to(1_000);
        self.life = (self.mono, 0);
        let now = self.now();
        self.client = open(&self.disk, &self.config, self.version, &mut self.random, now);
    }

    /// The medium loses one record.
    fn damage(&mut self) {
        let mut keys = Vec::new();
        let mut contents = self.disk.0.borrow_mut();
        let scanned = contents.store.scan(&mut |key, _| keys.push(key));
        assert_eq!(scanned, Ok(()));
        if keys.is_empty() {
            return;
        }
        let key = keys[self.random.up_to(keys.len() as u64 - 1) as usize];
        self.report.damaged += 1;
        match key {
            Key::State => self.state_lost = true,
            Key::Context(_) => self.server.context_lost = true,
            Key::Batch(_) => self.server.batch_lost = true,
            Key::Event(_) => {}
        }
        self.damaged.extend(contents.lose(key));
    }

    /// First the network heals and the user agrees, then the disk: everything must be delivered, and the client must
    /// rest.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.disk.0.borrow_mut().fate = Fate::Works;
        if self.trouble.consent {
            self.client.set_consent(self.now(), Consent::Granted);
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
            self.check_deletions();
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
