//! Steps of the simulation: calls of the client, responses, faults, and the final recovery.

use super::disk::InjectedFault;
use super::lasting_fault::LastingFault;
use super::oracle::{Cause, Outcome};
use super::server::{BAD, HUGE, POISON, Server};
use super::{DRAIN_STEPS, InFlightResponse, Report, Simulator, context};
use crate::transport::{Task, UploadRequest, UploadResult};
use crate::{Consent, Id, Input, Theme};

/// Size of common properties that is large compared with everything else here, bytes.
const LARGE: usize = 1_500;

impl Simulator {
    pub(super) fn step(&mut self) {
        match self.random.gen_inclusive(20) {
            0..=6 => self.track(),
            7..=11 => self.poll(),
            12..=14 => self.deliver_response(),
            15 => self.pass_time(),
            16 => self.jump_or_sleep(),
            17 => self.host_event(),
            18 if self.plan.kills => self.kill(),
            19 if self.plan.lasting => self.start_fault(),
            _ => self.inject_fault(),
        }
        if self.disk.0.borrow().killed {
            self.kill();
        }
        self.age_fault();
    }

    fn jump_or_sleep(&mut self) {
        if self.random.gen_inclusive(1) == 0 { self.jump() } else { self.sleep() }
    }

    fn track(&mut self) {
        let theme = Theme::ALL[self.random.gen_inclusive(10) as usize];
        let code = match self.random.gen_inclusive(29) {
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

    /// Tracks a plain event; `false` if the client rejected it.
    pub(super) fn track_plain(&mut self) -> bool {
        self.track_event(Theme::Click, "fine", None)
    }

    fn track_event(&mut self, theme: Theme, code: &str, true_ts: Option<i64>) -> bool {
        let pad = "x".repeat(self.random.gen_inclusive(99) as usize);
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
                    self.assign_seq(*id);
                } else {
                    self.oracle.consent_pending.push(*id);
                }
            }
            Err(error) => self.refuse(error),
        }
        self.reconcile(&Cause::Recording);
        tracked.is_ok()
    }

    pub(super) fn poll(&mut self) {
        let task = self.client.poll_task(self.now());
        self.reconcile(&Cause::Sending);
        if self.disk.0.borrow().killed {
            // The process was killed during the call, so nothing of it is sent.
            return;
        }
        let wake = self.client.poll_timeout();
        match task {
            Some(Task::Upload(request)) => {
                assert_eq!(self.client.consent(), Consent::Granted, "nothing is sent without consent");
                self.report.uploads += 1;
                let events = Server::ids(&request.body);
                for id in &events {
                    let outcome = self.oracle.expected.events.get(id);
                    assert_eq!(outcome, Some(&Outcome::Queued), "only what waits is sent: {id}");
                }
                self.check_sources(&request, &events);
                self.sync_disk();
                self.oracle.sent.extend(&events);
                self.oracle.sent_now.extend(&events);
                self.send(&request, events);
            }
            None => assert!(
                wake.is_none_or(|at| at > self.mono),
                "no work, but a wake-up is due: {wake:?} at {}",
                self.mono
            ),
        }
    }

    /// Checks that batch and events are on the disk before they are sent, unless the disk has refused them twice in a
    /// row or the medium has lost them.
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

    /// Simulates the network and what happens to a request.
    fn send(&mut self, request: &UploadRequest, events: Vec<Id>) {
        let lasting = self.fault.map(|fault| fault.kind).filter(|_| !self.network_healed);
        let fault = if self.network_healed { 99 } else { self.random.gen_inclusive(19) };
        let statuses = [503, 500, 502, 429, 408, 404, 405, 415, 301, 204, 400, 413];
        let mut genuine = false;
        let (status, body) = match (lasting, fault) {
            (Some(LastingFault::NetworkAway), _) | (_, 0) => (None, String::new()),
            (Some(LastingFault::Answers(status)), _) => (Some(status), String::new()),
            (_, 1) => (Some(200), String::from("<html>Welcome to the airport</html>")),
            (_, 2) => (Some(200), String::new()),
            // Sent by an intermediary, which can answer like the collector.
            (_, 3) => (Some(statuses[self.random.gen_inclusive(11) as usize]), String::new()),
            (_, 4) => (Some([401, 403][self.random.gen_inclusive(1) as usize]), String::new()),
            (_, 5 | 6) => {
                self.server.receive(&request.body);
                ((fault == 6).then_some(504), String::new())
            }
            (_, 8) => return,
            _ => {
                if fault == 7 {
                    self.server.receive(&request.body);
                }
                genuine = true;
                let (status, body) = self.server.receive(&request.body);
                (Some(status), body)
            }
        };
        self.in_flight.push(InFlightResponse { batch: request.batch_id, events, status, body, genuine });
    }

    /// Delivers a random response, not necessarily to the first request, and sometimes twice.
    fn deliver_response(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let at = self.random.gen_inclusive(self.in_flight.len() as u64 - 1) as usize;
        let response = self.in_flight.remove(at);
        let times = if self.chance(9) { 2 } else { 1 };
        for _ in 0..times {
            let retry_after_ms = self.chance(3).then(|| self.random.gen_inclusive(5_000));
            let result = match response.status {
                Some(status) => UploadResult::Response { status, retry_after_ms, body: &response.body },
                None => UploadResult::Failed,
            };
            self.client.handle_upload_result(self.now(), response.batch, result);
            self.reconcile(&Cause::Answer(&response));
        }
    }

    fn host_event(&mut self) {
        let now = self.now();
        match self.random.gen_inclusive(10) {
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
            _ if self.plan.consent => self.change_consent(),
            _ => {}
        }
        self.reconcile(&Cause::Other);
    }

    /// Commits at once, as a host does that expects to be killed.
    fn persist(&mut self) {
        let done = self.client.commit(self.now());
        self.reconcile(&Cause::Other);
        if done && self.client.consent() == Consent::Granted {
            let (contents, oracle) = (self.disk.0.borrow(), &self.oracle);
            for (seq, id) in &oracle.queued {
                let there = contents.present.get(seq) == Some(id) || oracle.damaged.contains(id);
                assert!(there, "everything is stored, the client says, but not {id}");
            }
        }
    }

    fn inject_fault(&mut self) {
        if self.plan.damage && self.chance(3) {
            return self.damage();
        }
        let fault = match self.random.gen_inclusive(2) {
            1 if self.plan.kills => InjectedFault::KillBefore,
            2 if self.plan.kills => InjectedFault::KillAfter,
            _ => InjectedFault::Refuse,
        };
        let contents = &mut *self.disk.0.borrow_mut();
        contents.fault = fault;
        contents.delay = self.random.gen_inclusive(2);
        contents.repetitions = 1 + self.random.gen_inclusive(5);
    }

    /// Ends the faults of the network and grants consent, then ends those of the disk. Everything must be delivered,
    /// and the client must become idle.
    pub(super) fn heal(&mut self) {
        self.network_healed = true;
        self.disk.0.borrow_mut().fault = InjectedFault::None;
        if self.plan.consent {
            self.set_consent(Consent::Granted);
        }
        let broken = self.fault.map(|fault| fault.kind).filter(|kind| kind.affects_disk());
        if matches!(broken, Some(LastingFault::DiskFull | LastingFault::DiskRefuses)) {
            self.client.flush(self.now());
            self.drain(|simulator| simulator.client.ledger().queued == 0);
        }
        self.end_fault();
        self.client.flush(self.now());
        self.drain(|simulator| simulator.client.poll_timeout().is_none());
    }

    fn drain(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..DRAIN_STEPS {
            self.poll();
            if !self.in_flight.is_empty() {
                self.deliver_response();
                continue;
            }
            if done(self) {
                return;
            }
            let Some(wake) = self.client.poll_timeout() else { panic!("no wake-up is scheduled: {:?}", self.report) };
            self.pass(wake.saturating_sub(self.mono));
        }
        panic!("the client never becomes idle: {:?} {:?}", self.client.ledger(), Report { ..self.report });
    }
}
