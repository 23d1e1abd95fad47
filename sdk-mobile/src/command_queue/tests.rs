use std::sync::Arc;
use std::thread;

use super::*;
use crate::types::Theme;

const NOW: Now = Now { wall: 0, mono: 0 };
const LONG: Duration = Duration::from_secs(60);

fn queue() -> CommandQueue {
    CommandQueue::new(Ledger::default(), Id::v7(0, [0; 10]))
}

fn event() -> Command {
    Command::Track(NOW, TrackEvent::new(Theme::View, "v"))
}

fn report(reached: [u64; 2]) -> DriverReport {
    DriverReport {
        ledger: Ledger::default(),
        install: Id::v7(0, [0; 10]),
        diagnostics: Vec::new(),
        last_upload: None,
        reached,
    }
}

#[test]
fn commands_have_a_limit_of_their_own_and_stay_in_order() {
    let queue = queue();
    queue.push(event()).unwrap();
    for _ in 0..MAX_QUEUED_COMMANDS {
        queue.push(Command::Flush(NOW)).unwrap();
    }
    assert_eq!(queue.push(Command::Flush(NOW)), Err(PushError::Full));
    assert_eq!(queue.take_diagnostics().len(), 1);
    queue.push(event()).unwrap();
    queue.push(Command::Stop).unwrap();
    let mut commands = Vec::new();
    assert_eq!(queue.take(None, EventCounts::default(), &mut commands).events, 2);
    assert!(matches!(commands[0], Command::Track(..)) && matches!(commands[1], Command::Flush(..)));
    assert!(matches!(commands[MAX_QUEUED_COMMANDS + 1], Command::Track(..)));
    assert!(matches!(commands.last(), Some(Command::Stop)));
}

#[test]
fn an_event_is_counted_when_queued_when_taken_and_after() {
    let queue = queue();
    queue.push(event()).unwrap();
    queue.count_invalid();
    let counted = |queue: &CommandQueue| {
        let ledger = queue.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        (ledger.generated, ledger.queued)
    };
    assert_eq!(counted(&queue), (2, 1));
    let mut commands = Vec::new();
    queue.take(None, EventCounts::default(), &mut commands);
    assert_eq!(counted(&queue), (2, 1));
    queue.push(event()).unwrap();
    assert_eq!(counted(&queue), (3, 2));
    let mut ledger = Ledger { generated: 2, queued: 1, ..Ledger::default() };
    ledger.drop(DropReason::Invalid, 1);
    queue.publish(DriverReport { ledger, ..report([0; 2]) });
    assert_eq!(counted(&queue), (3, 2));
}

#[test]
fn barriers_are_reached_by_kind_and_fail_after_the_stop() {
    let queue = Arc::new(queue());
    let (ended, persisted) =
        (queue.submit_barrier(Barrier::Settled).unwrap(), queue.submit_barrier(Barrier::Persisted).unwrap());
    assert!(!queue.wait(Barrier::Settled, ended, Duration::ZERO));
    let waiter = thread::spawn({
        let queue = queue.clone();
        move || queue.wait(Barrier::Persisted, persisted, LONG)
    });
    queue.publish(report([0, persisted]));
    assert!(waiter.join().unwrap());
    assert!(!queue.wait(Barrier::Settled, ended, Duration::ZERO));
    queue.mark_stopped();
    assert!(!queue.wait(Barrier::Settled, ended, LONG));
    assert!(queue.wait(Barrier::Persisted, persisted, Duration::ZERO), "what was reached stays reached");
    assert_eq!(queue.push(event()), Err(PushError::Closed));
    assert!(queue.wait_stopped(Duration::ZERO) && queue.submit_barrier(Barrier::Settled).is_none());
}

#[test]
fn events_wake_a_parked_driver_but_not_a_coalescing_one() {
    let queue = Arc::new(queue());
    let fast = EventCounts { events: COALESCE_THRESHOLD, ..EventCounts::default() };
    for last in [EventCounts::default(), fast] {
        for command in [event(), Command::Flush(NOW)] {
            let driver = thread::spawn({
                let queue = queue.clone();
                move || {
                    let mut commands = Vec::new();
                    queue.take(None, last, &mut commands);
                    commands.len()
                }
            });
            queue.push(command).unwrap();
            assert_eq!(driver.join().unwrap(), 1);
            queue.publish(report([0; 2]));
        }
    }
}

#[test]
fn the_driver_waits_no_longer_than_its_timeout() {
    let mut commands = Vec::new();
    assert_eq!(queue().take(Some(Duration::ZERO), EventCounts::default(), &mut commands), EventCounts::default());
    assert!(commands.is_empty());
}
