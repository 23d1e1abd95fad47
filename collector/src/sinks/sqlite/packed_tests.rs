use proptest::prelude::*;
use serde_json::value::RawValue;

use super::packed::{BlobLayout, BlobReader, CURRENT_LAYOUT, MAX_BLOB_EVENTS, pack};
use crate::record::{Column, ColumnSource, Event, Object, OwnedValue};

/// Reads the current event of a blob.
struct Reading<'a>(&'a BlobReader<'a>, usize);

impl ColumnSource for Reading<'_> {
    type Error = rusqlite::Error;

    fn next(&mut self, column: &'static Column) -> rusqlite::Result<OwnedValue> {
        self.1 += 1;
        self.0.get(self.1 - 1, column)
    }
}

fn unpack(layout: &str, blob: &[u8]) -> rusqlite::Result<Vec<String>> {
    let layout = BlobLayout::parse(layout)?;
    let (mut unpacked, mut out) = (BlobReader::new(&layout, blob), Vec::new());
    while unpacked.next()? {
        out.push(serde_json::to_string(&Event::read(&mut Reading(&unpacked, 0))?).unwrap());
    }
    Ok(out)
}

fn texts(events: &[Event<'_>]) -> Vec<String> {
    events.iter().map(|event| serde_json::to_string(event).unwrap()).collect()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        ".{0,40}",
        Just("0198c0de-0000-7000-8000-00000000000a".to_owned()),
        Just("0198C0DE-0000-7000-8000-00000000000A".to_owned()),
        "[a-z]{36}",
        "[a-z]{200}",
    ]
}

prop_compose! {
    fn event()(
        times in (any::<i64>(), -3i64..3, any::<Option<i64>>()),
        numbers in (any::<u64>(), any::<Option<u64>>(), proptest::option::of(0u64..3)),
        texts in proptest::collection::vec(text(), 7),
        unverified in any::<bool>(),
        props in proptest::option::of("[a-z]{0,150}"),
    ) -> Event<'static> {
        let at = |at: usize| texts[at].clone().into();
        let json = |text: String| RawValue::from_string(format!("{{\"k\": \"{text}\"}}")).unwrap();
        Event {
            event_time: times.0, ts: times.1, page_enter_ts: times.2,
            seq: numbers.0, mono: numbers.1, session_event: numbers.2,
            event_id: at(0), user_id: at(1), theme: at(2), code: at(3), boot: at(4), session_id: at(5), page_path: at(6),
            unverified,
            props: Object(props.map(|text| std::borrow::Cow::Owned(json(text)))),
            ..Event::default()
        }
    }
}

proptest! {
    #[test]
    fn what_is_packed_comes_back_exactly(events in proptest::collection::vec(event(), 0..6)) {
        let mut blob = vec![1, 2, 3];
        pack(&events, &mut blob);
        prop_assert_eq!(unpack(&CURRENT_LAYOUT, &blob).unwrap(), texts(&events));
    }

    #[test]
    fn damage_is_an_error_or_another_event_and_never_a_panic(
        events in proptest::collection::vec(event(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<bool>()
    ) {
        let mut blob = Vec::new();
        pack(&events, &mut blob);
        let at = at.index(blob.len());
        if end { blob.truncate(at) } else { blob[at] = byte }
        if let Ok(found) = unpack(&CURRENT_LAYOUT, &blob) {
            prop_assert!(!end || found.len() < events.len());
        }
    }
}

#[test]
fn columns_that_came_or_went_since_do_not_disturb_the_others() {
    let layout = CURRENT_LAYOUT.replace("code:t", "colour:t");
    let event = Event { code: "red".into(), theme: "view".into(), seq: 7, ..Event::default() };
    let mut blob = Vec::new();
    pack(std::slice::from_ref(&event), &mut blob);
    let expected = Event { code: "".into(), ..event };
    assert_eq!(unpack(&layout, &blob).unwrap(), texts(&[expected]));
    assert!(unpack("theme:?", &blob).is_err());
}

#[test]
fn neighbours_that_are_alike_take_few_bytes() {
    let event = |n: i64| Event {
        event_id: format!("0198c0de-0000-7000-8000-{n:012x}").into(),
        event_time: 1_790_000_000_000 + n,
        seq: n.unsigned_abs(),
        theme: "view".into(),
        code: "page_view".into(),
        page_path: "pages/index".into(),
        ..Event::default()
    };
    let events: Vec<_> = (0..100).map(event).collect();
    let mut blob = Vec::new();
    pack(&events, &mut blob);
    // A mask of three bytes, the identity, and a byte for each of the two numbers.
    assert!(blob.len() < 23 * 100, "{} bytes", blob.len());
}

#[test]
fn a_blob_ends_after_so_many_events_or_bytes_and_none_is_lost() {
    let event = |n: usize, bytes: usize| Event { user_id: format!("{n:0>bytes$}").into(), ..Event::default() };
    for (bytes, most) in [(8, MAX_BLOB_EVENTS), (2000, 132)] {
        let events: Vec<_> = (0..1200).map(|n| event(n, bytes)).collect();
        let (mut found, mut left, mut blob) = (Vec::new(), &events[..], Vec::new());
        while !left.is_empty() {
            let packed = pack(left, &mut blob);
            assert!((1..=most).contains(&packed), "{packed} events of {bytes} bytes");
            found.extend(unpack(&CURRENT_LAYOUT, &blob).unwrap());
            left = &left[packed..];
        }
        assert_eq!(found, texts(&events));
    }
}
