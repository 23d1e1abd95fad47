//! The collector's side of the codec decodes the golden batches that the SDK encodes, and encodes the golden receipts
//! that the SDK decodes.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use subway_protocol::codec::server::{Receipt, Rejection, WireEvent, decode};
use subway_protocol::{Id, Limits, RejectReason, Theme, Violation};

fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    std::fs::read_to_string(path).unwrap().trim_end().to_owned()
}

#[test]
fn a_batch_with_everything_is_read() {
    let body = fixture("good/everything.json");
    let batch = decode(body.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(batch.sent_at, 1_431_835_512_000);
    assert_eq!(batch.sent_mono, Some(92_000));
    let context = &batch.context;
    assert_eq!((context.app_version.as_str(), context.sdk_name.as_str()), ("1.2.0", "subway-miniprogram"));
    assert_eq!((context.platform.as_str(), context.model.as_str()), ("jd", "iPhone 15 \"Pro\""));
    assert_eq!((context.timezone.as_str(), context.network.as_str()), ("Asia/Shanghai", "wifi"));
    assert_eq!(batch.common.unwrap().get(), r#"{"channel":"qr","beta":true}"#);
    let events: Vec<WireEvent<'_>> = batch.events.iter().map(|raw| WireEvent::decode(raw).unwrap()).collect();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let view = &events[0];
    assert_eq!(
        (view.theme, &*view.code, view.ts, view.mono),
        (Theme::View, "page_view", 1_431_835_500_003, Some(80_003))
    );
    assert_eq!((&*view.user_id, view.true_ts), ("用户-1", None));
    let page = view.page.as_ref().unwrap();
    assert_eq!(page.title.as_deref(), Some("首页\n\u{1}"));
    assert_eq!(page.enter_ts, Some(1_431_835_500_003));
    let session = view.session.as_ref().unwrap();
    assert_eq!((session.index, session.event), (Some(1), Some(1)));
    assert_eq!(view.props.unwrap().get(), r#"{"k":"any JSON","n":-1.5e3,"list":[1,{"a":null}],"emoji":"🚇"}"#);
    assert!(events[1].props.is_none());
    assert_eq!(events[2].true_ts, Some(1_431_800_000_000));
}

#[test]
fn the_least_batch_is_read() {
    let body = fixture("good/least.json");
    let batch = decode(body.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(batch.context, Default::default());
    let event = WireEvent::decode(batch.events[0]).unwrap();
    assert!(event.props.is_none() && event.page.is_none() && event.user_id.is_empty());
}

#[test]
fn every_theme_is_read() {
    let body = fixture("good/themes.json");
    let batch = decode(body.as_bytes(), &Limits::default()).unwrap();
    let themes: Vec<Theme> = batch.events.iter().map(|raw| WireEvent::decode(raw).unwrap().theme).collect();
    assert_eq!(themes, Theme::ALL);
}

#[test]
fn golden_receipts_are_written() {
    let id = |text| Id::parse(text).unwrap();
    let mut receipt = Receipt {
        batch_id: id("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"),
        server_time: 1_431_835_512_345,
        stored: 2,
        duplicate: vec![],
        rejected: vec![],
    };
    assert_eq!(serde_json::to_string(&receipt).unwrap(), fixture("receipts/all_stored.json"));
    receipt.duplicate = vec![3];
    receipt.rejected = vec![
        Rejection {
            index: 1,
            id: Some(id("017f22e2-79b0-7cc3-98c4-dc0c0c073990")),
            violation: Violation::limit_exceeded(RejectReason::PropertyTooDeep, "props.a.b", 8, 12),
        },
        Rejection { index: 4, id: None, violation: Violation::new(RejectReason::MissingField, "id", None) },
    ];
    assert_eq!(serde_json::to_string(&receipt).unwrap(), fixture("receipts/mixed.json"));
}
