use std::sync::Arc;
use std::thread;

use super::*;
use crate::types::Theme;

const NOW: Now = Now { wall: 0, mono: 0 };
const LONG: Duration = Duration::from_secs(60);

fn inbox() -> Inbox {
    Inbox::new(Ledger::default(), Id::v7(0, [0; 10]))
}

fn event() -> Message {
    Message::Track(NOW, TrackEvent::new(Theme::View, "v"))
}

fn report(answered: [u64; 2]) -> Report {
    Report { ledger: Ledger::default(), install: Id::v7(0, [0; 10]), notices: Vec::new(), last_upload: None, answered }
}

#[test]
fn calls_have_a_cap_of_their_own_and_keep_their_place_among_events() {
    let inbox = inbox();
    inbox.push(event()).unwrap();
    for _ in 0..INBOX_CALLS {
        inbox.push(Message::Flush(NOW)).unwrap();
    }
    assert_eq!(inbox.push(Message::Flush(NOW)), Err(Refused::Full));
    assert_eq!(inbox.take_diagnostics().len(), 1);
    inbox.push(event()).unwrap();
    inbox.push(Message::Stop).unwrap();
    let mut messages = Vec::new();
    assert_eq!(inbox.take(None, Counts::default(), &mut messages).events, 2);
    assert!(matches!(messages[0], Message::Track(..)) && matches!(messages[1], Message::Flush(..)));
    assert!(matches!(messages[INBOX_CALLS + 1], Message::Track(..)));
    assert!(matches!(messages.last(), Some(Message::Stop)));
}

#[test]
fn an_event_is_counted_while_it_waits_while_it_is_worked_on_and_after() {
    let inbox = inbox();
    inbox.push(event()).unwrap();
    inbox.count_invalid();
    let counted = |inbox: &Inbox| {
        let ledger = inbox.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        (ledger.generated, ledger.queued)
    };
    assert_eq!(counted(&inbox), (2, 1));
    let mut messages = Vec::new();
    inbox.take(None, Counts::default(), &mut messages);
    assert_eq!(counted(&inbox), (2, 1));
    inbox.push(event()).unwrap();
    assert_eq!(counted(&inbox), (3, 2));
    let mut ledger = Ledger { generated: 2, queued: 1, ..Ledger::default() };
    ledger.drop(DropReason::Invalid, 1);
    inbox.publish(Report { ledger, ..report([0; 2]) });
    assert_eq!(counted(&inbox), (3, 2));
}

#[test]
fn tickets_are_answered_by_kind_and_a_driver_that_left_answers_nobody() {
    let inbox = Arc::new(inbox());
    let (ended, persisted) = (inbox.ask(Wait::Ended).unwrap(), inbox.ask(Wait::Persisted).unwrap());
    assert!(!inbox.wait(Wait::Ended, ended, Duration::ZERO));
    let waiter = thread::spawn({
        let inbox = inbox.clone();
        move || inbox.wait(Wait::Persisted, persisted, LONG)
    });
    inbox.publish(report([0, persisted]));
    assert!(waiter.join().unwrap());
    assert!(!inbox.wait(Wait::Ended, ended, Duration::ZERO));
    inbox.leave();
    assert!(!inbox.wait(Wait::Ended, ended, LONG));
    assert!(inbox.wait(Wait::Persisted, persisted, Duration::ZERO), "what was answered stays answered");
    assert_eq!(inbox.push(event()), Err(Refused::Closed));
    assert!(inbox.wait_gone(Duration::ZERO) && inbox.ask(Wait::Ended).is_none());
}

#[test]
fn a_sleeping_driver_is_woken_by_anything_and_a_lingering_one_by_calls() {
    let inbox = Arc::new(inbox());
    let fast = Counts { events: FAST_EVENTS, ..Counts::default() };
    for last in [Counts::default(), fast] {
        for message in [event(), Message::Flush(NOW)] {
            let driver = thread::spawn({
                let inbox = inbox.clone();
                move || {
                    let mut messages = Vec::new();
                    inbox.take(None, last, &mut messages);
                    messages.len()
                }
            });
            inbox.push(message).unwrap();
            assert_eq!(driver.join().unwrap(), 1);
            inbox.publish(report([0; 2]));
        }
    }
}

#[test]
fn the_driver_is_not_kept_longer_than_it_asked_for() {
    let mut messages = Vec::new();
    assert_eq!(inbox().take(Some(Duration::ZERO), Counts::default(), &mut messages), Counts::default());
    assert!(messages.is_empty());
}
