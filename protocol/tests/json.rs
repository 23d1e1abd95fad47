//! Compares this crate's JSON code with serde_json, on generated and damaged text.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::Value;
use subway_protocol::json::{PropertyLimits, Reader, check_object, write_integer, write_string};
use subway_protocol::{Actual, RejectReason};

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"\\\\页]{0,4}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Returns the depth and the most members of any one object, measured on the tree.
fn measure(value: &Value) -> (u64, u64) {
    let (children, own): (Vec<&Value>, u64) = match value {
        Value::Array(items) => (items.iter().collect(), 0),
        Value::Object(map) => (map.values().collect(), map.len() as u64),
        _ => return (0, 0),
    };
    let inner = children.into_iter().map(measure).fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    (inner.0 + 1, inner.1.max(own))
}

const WIDE: PropertyLimits = PropertyLimits { properties: u64::MAX, depth: u64::MAX, key_bytes: u64::MAX };

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn limits_are_judged_as_on_the_tree(value in tree(), depth in 1u64..5, properties in 1u64..4, pretty: bool) {
        let value = serde_json::json!({ "a": value });
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let (deep, wide) = measure(&value);
        let verdict = check_object(&text, "props", PropertyLimits { properties, depth, key_bytes: u64::MAX });
        prop_assert_eq!(verdict.is_ok(), deep <= depth && wide <= properties);
        if let Err(violation) = verdict {
            prop_assert!(violation.field.starts_with("props"));
            if violation.reason == RejectReason::PropertyTooDeep {
                prop_assert_eq!(violation.got, Some(Actual::Number(deep as i64)));
            }
        }
    }

    #[test]
    fn damaged_text_is_judged_as_by_serde_json(value in tree(), at: prop::sample::Index, c in "[{}\\[\\]\",:\\\\0-9eE.+\\-tfnu \u{0}a]") {
        let mut text = serde_json::to_string(&value).unwrap();
        let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let at = boundaries[at.index(boundaries.len())];
        text.insert_str(at, &c);
        // The collector reads properties as a RawValue: the same grammar, with lone surrogates and any number allowed.
        let object = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok() && text.trim_start().starts_with('{');
        prop_assert_eq!(check_object(&text, "props", WIDE).is_ok(), object, "{}", text);
    }

    #[test]
    fn strings_and_integers_come_back(text in ".*", number: i64) {
        let mut out = String::new();
        write_string(&mut out, &text);
        prop_assert_eq!(&serde_json::from_str::<String>(&out).unwrap(), &text);
        prop_assert_eq!(Reader::new(&out).string().unwrap(), text);
        let mut out = String::new();
        write_integer(&mut out, number);
        prop_assert_eq!(serde_json::from_str::<i64>(&out).unwrap(), number);
        prop_assert_eq!(Reader::new(&out).integer().unwrap(), number);
    }

    #[test]
    fn raw_takes_exactly_one_value(value in tree()) {
        let text = serde_json::to_string(&value).unwrap();
        let mut reader = Reader::new(&text);
        prop_assert_eq!(reader.raw().unwrap(), &text);
        prop_assert!(reader.end().is_ok());
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,40}") {
        let _ = Reader::new(&text).raw();
        let _ = Reader::new(&text).string();
        let _ = Reader::new(&text).object(|_, reader| reader.raw().map(drop));
        let _ = subway_protocol::codec::receipt::Receipt::decode(&text);
        let _ = check_object(&text, "props", WIDE);
    }
}

#[test]
fn a_violation_shows_path_limit_and_the_true_size() {
    let limits = PropertyLimits { properties: 3, depth: 3, key_bytes: 5 };
    let check = |text: &str| check_object(text, "props", limits).unwrap_err();
    let deep = check(r#"{"a":{"list":[0,{"b":{"c":[]}}]}}"#);
    assert_eq!((deep.field.as_str(), deep.limit, deep.got), ("props.a.list.1", Some(3), Some(Actual::Number(6))));
    let wide = check(r#"{"a":{"b":1,"c":{"x":1},"d":3,"e":4,"f":5},"g":6}"#);
    assert_eq!((wide.field.as_str(), wide.limit, wide.got), ("props.a", Some(3), Some(Actual::Number(5))));
    let long = check(r#"{"a":[{"seventh":1}]}"#);
    assert_eq!((long.field.as_str(), long.limit, long.got), ("props.a.0.seventh", Some(5), Some(Actual::Number(7))));
}
