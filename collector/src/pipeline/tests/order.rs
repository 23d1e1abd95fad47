//! The order of an install's events under clocks that jump.

use super::*;

#[derive(Clone, Debug)]
struct Reading {
    boot: Option<u8>,
    mono: Option<u64>,
    ts: i64,
    true_ts: Option<i64>,
}

fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let reading = (
        prop::option::weighted(0.9, 0..3u8),
        prop::option::weighted(0.9, 0..1000u64),
        0..1000i64,
        prop::option::weighted(0.1, 0..1000i64),
    )
        .prop_map(|(boot, mono, ts, true_ts)| Reading { boot, mono, ts, true_ts });
    prop::collection::vec(reading, 1..40)
}

fn of(readings: &[Reading], first_seq: usize) -> Prepared {
    let mut events = Vec::new();
    for (at, reading) in readings.iter().enumerate() {
        let seq = (first_seq + at) as u64;
        let mut event = json!({"id": id(seq), "seq": seq, "theme": "view", "code": "a", "ts": NOW + reading.ts});
        if let Some(boot) = reading.boot {
            event["boot"] = json!(format!("b{boot}"));
        }
        if let Some(mono) = reading.mono {
            event["mono"] = json!(mono);
        }
        if let Some(true_ts) = reading.true_ts {
            event["true_ts"] = json!(NOW + true_ts);
        }
        events.push(event);
    }
    prepared(&batch(events))
}

fn times(prepared: &Prepared) -> Vec<i64> {
    prepared.candidates.iter().map(|candidate| candidate.event_time).collect()
}

/// A reading of a wall clock: honest, wrong by years, absurd.
fn clock() -> impl Strategy<Value = i64> {
    let day = 86_400_000;
    prop_oneof![
        NOW - 10 * day..NOW + 10 * day,
        -day..NOW * 3,
        Just(-1),
        Just(1_000_000_000_000_000),
        any::<i64>(),
        Just(i64::MAX),
        Just(i64::MIN),
    ]
}

proptest! {
    #[test]
    fn every_event_has_a_time_near_its_arrival_and_says_where_it_is_from(
        ts in clock(), true_ts in prop::option::weighted(0.3, clock()), sent_at in prop::option::of(clock()),
        mono in prop::option::of(any::<u64>()), sent_mono in prop::option::of(any::<u64>()),
    ) {
        let bounds = Bounds::new(NOW, PAST_DAYS, 86_400_000, 300_000);
        let inside = |time: i128| (i128::from(bounds.earliest)..=i128::from(bounds.latest)).contains(&time);
        let event = Event { true_ts, mono, ..Event::new(Id::from_bytes([7; 16]), Theme::View, "a", ts) };
        let sent = Sent { at: sent_at, mono: sent_mono, first_at: None };
        let placed = clock::place(&event, &sent, &bounds);
        let difference = i128::from(NOW) - i128::from(sent_at.unwrap_or(NOW));
        let corrected = i128::from(ts) + if difference.abs() > 300_000 { difference } else { 0 };
        let expected = match (true_ts, sent_mono.zip(mono)) {
            (Some(true_ts), _) if !inside(true_ts.into()) => {
                prop_assert_eq!(placed.unwrap_err().reason, RejectReason::TimeOutOfRange);
                return Ok(());
            }
            (Some(true_ts), _) => (true_ts.into(), TimeSource::True),
            _ if inside(corrected) && difference.abs() > 300_000 => (corrected, TimeSource::Corrected),
            _ if inside(corrected) => (corrected, TimeSource::Device),
            (_, Some((sent, event))) if sent >= event && inside(i128::from(NOW) - i128::from(sent - event)) => {
                (i128::from(NOW) - i128::from(sent - event), TimeSource::Arrival)
            }
            _ => (i128::from(NOW), TimeSource::Arrival),
        };
        let (time, source) = placed.unwrap();
        prop_assert_eq!((i128::from(time), source), expected);
    }

    #[test]
    fn the_monotonic_clock_keeps_an_install_in_order(readings in readings()) {
        let mut prepared = of(&readings, 1);
        let before = times(&prepared);
        prepared.order(&vec![true; readings.len()], None);
        let after = times(&prepared);
        let mut previous: Option<(Option<u8>, u64, i64)> = None;
        for (at, reading) in readings.iter().enumerate() {
            prop_assert!(after[at] >= before[at], "an event is never moved back");
            let (boot, Some(mono), None) = (reading.boot, reading.mono, reading.true_ts) else {
                prop_assert_eq!(after[at], before[at], "without a reading nothing is changed");
                continue;
            };
            match previous {
                Some((b, m, time)) if b == boot && mono > m && before[at] < time => {
                    prop_assert_eq!(after[at], time + i64::try_from(mono - m).unwrap());
                }
                _ => prop_assert_eq!(after[at], before[at], "without proof nothing is changed"),
            }
            previous = Some((boot, mono, after[at]));
        }
    }

    #[test]
    fn batches_one_by_one_are_ordered_as_one_batch(readings in readings(), cut in 0..40usize) {
        let mut whole = of(&readings, 1);
        let end = whole.order(&vec![true; readings.len()], None);
        let cut = cut.min(readings.len());
        let (first, second) = readings.split_at(cut);
        let mut last = None;
        let mut joined = Vec::new();
        for (part, seq) in [(first, 1), (second, 1 + cut)] {
            if part.is_empty() {
                continue;
            }
            let mut prepared = of(part, seq);
            let newest = prepared.order(&vec![true; part.len()], last.clone());
            last = newest.or(last);
            joined.extend(times(&prepared));
        }
        prop_assert_eq!(joined, times(&whole));
        prop_assert_eq!(last, end);
    }

    #[test]
    fn events_that_are_not_fresh_take_no_part(readings in readings()) {
        let mut prepared = of(&readings, 1);
        let before = times(&prepared);
        prop_assert_eq!(prepared.order(&vec![false; readings.len()], None), None);
        prop_assert_eq!(times(&prepared), before);
        prop_assert_eq!(prepared.records(&vec![false; readings.len()]).count(), 0);
    }

    #[test]
    fn whatever_texts_come_the_record_can_be_read(user in "\\PC*|[\\x00-\\x1f\"\\\\]*", path in any::<String>(), key in any::<String>()) {
        let mut sent = event(1);
        sent["user_id"] = json!(user);
        sent["page"] = json!({"path": path});
        sent["props"] = json!({"a": key});
        let mut text = String::new();
        write!(text, "{}", batch(vec![sent])).unwrap();
        let prepared = prepared_text(&text);
        prop_assume!(prepared.rejected.is_empty());
        let text = record(&prepared, &[true]);
        let record: Record<'_> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&record.events[0].user_id, &user);
        prop_assert_eq!(&record.events[0].page_path, &path);
        let props: Value = serde_json::from_str(record.events[0].props.get().unwrap().get()).unwrap();
        prop_assert_eq!(props, json!({"a": key}));
    }
}

#[test]
fn a_late_batch_does_not_take_the_place_of_a_newer_one() {
    let reading = Reading { boot: Some(1), mono: Some(5), ts: 0, true_ts: None };
    let newer = ClockAnchor { seq: 100, boot: "b1".into(), mono: 900, event_time: NOW + 500 };
    let mut late = of(std::slice::from_ref(&reading), 7);
    assert_eq!(late.order(&[true], Some(newer)), None);
    assert_eq!(times(&late), [NOW]);
}

#[test]
fn readings_without_a_boot_count_as_one_boot() {
    let reading = |mono, ts| Reading { boot: None, mono: Some(mono), ts, true_ts: None };
    let mut prepared = of(&[reading(100, 0), reading(150, -9_000)], 1);
    let last = prepared.order(&[true, true], None).unwrap();
    assert_eq!(times(&prepared), [NOW, NOW + 50]);
    assert_eq!((last.boot.as_str(), last.mono), ("", 150));
    let mut named = of(&[Reading { boot: Some(1), ..reading(200, -9_000) }], 3);
    named.order(&[true], Some(last));
    assert_eq!(times(&named), [NOW - 9_000], "a named boot is another");
}

#[test]
fn a_wrong_future_time_draws_nothing_along() {
    let tolerance = Limits::default().clock_tolerance_ms;
    let reading = |mono, ts| Reading { boot: Some(1), mono: Some(mono), ts, true_ts: None };
    let mut prepared = of(&[reading(10, 0), reading(20, tolerance + 1), reading(30, -1), reading(40, tolerance)], 1);
    let last = prepared.order(&[true; 4], None);
    assert_eq!(times(&prepared), [NOW, NOW + tolerance + 1, NOW + 20, NOW + tolerance], "only what precedes it counts");
    assert_eq!(last.map(|last| last.seq), Some(4));

    let mut future = of(&[reading(10, tolerance + 1)], 1);
    assert_eq!(future.order(&[true], None), None, "it is not remembered");

    // One that was remembered proves nothing, and gives way even to an event with a smaller number.
    let stuck = ClockAnchor { seq: 9, boot: "b1".into(), mono: 5, event_time: NOW + tolerance + 1 };
    let mut next = of(&[reading(10, 0)], 5);
    assert_eq!(next.order(&[true], Some(stuck)).map(|last| last.seq), Some(5));
    assert_eq!(times(&next), [NOW]);
}
