//! The client encodes the golden batches byte for byte and decodes the golden receipts. The collector's tests use the
//! same files. `SUBWAY_BLESS=1` rewrites the batches after a deliberate change of the format.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use subway_sdk_core::protocol::codec::receipt::Receipt;
use subway_sdk_core::{Client, Config, Context, Id, Input, MemoryStore, Now, Page, Task, Theme};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../protocol/fixtures").join(name)
}

fn compare(name: &str, written: &str) {
    let path = fixture(name);
    if std::env::var_os("SUBWAY_BLESS").is_some() {
        std::fs::write(&path, format!("{written}\n")).unwrap();
    }
    assert_eq!(written, std::fs::read_to_string(&path).unwrap().trim_end(), "{name}");
}

fn now(ms: u64) -> Now {
    Now { wall: 1_431_835_500_000 + ms as i64, mono: 80_000 + ms }
}

fn open(context: Context) -> Client<MemoryStore> {
    Client::open(MemoryStore::default(), Config::default(), &context.encode(), b"golden", now(0)).unwrap()
}

fn upload(client: &mut Client<MemoryStore>, at: Now) -> String {
    client.flush(at);
    let Task::Upload(request) = client.poll_task(at).unwrap();
    request.body
}

#[test]
fn a_batch_with_everything() {
    let context = Context {
        app_version: "1.2.0".into(),
        sdk_name: "subway-miniprogram".into(),
        sdk_version: "0.1.0".into(),
        platform: "jd".into(),
        host_app: "jdapp".into(),
        host_version: "13.0".into(),
        os: "iOS".into(),
        os_version: "17.1".into(),
        brand: "Apple".into(),
        model: "iPhone 15 \"Pro\"".into(),
        screen: "390x844".into(),
        language: "zh-CN".into(),
        timezone: "Asia/Shanghai".into(),
        network: "wifi".into(),
    };
    let mut client = open(context);
    client.register(now(1), r#"{"channel":"qr","beta":true}"#).unwrap();
    client.identify(now(2), "用户-1").unwrap();
    let page = Page {
        path: "pages/index".into(),
        title: "首页\n\u{1}".into(),
        referrer: "pages/list".into(),
        enter_ts: Some(1_431_835_500_003),
    };
    let props = r#"{"k":"any JSON","n":-1.5e3,"list":[1,{"a":null}],"emoji":"🚇"}"#;
    let input = Input { theme: Theme::View, code: "page_view", props, page: Some(&page), true_ts: None };
    client.track(now(3), input).unwrap();
    client.track(now(900), Input { theme: Theme::Click, code: "buy:now", props: "{}", ..input }).unwrap();
    client.track(now(901), Input { theme: Theme::Network, true_ts: Some(1_431_800_000_000), ..input }).unwrap();
    compare("good/everything.json", &upload(&mut client, now(12_000)));
}

#[test]
fn a_batch_with_the_least() {
    let mut client = open(Context::default());
    let input = Input { theme: Theme::Custom, code: "x", props: "", page: None, true_ts: None };
    client.track(now(3), input).unwrap();
    compare("good/least.json", &upload(&mut client, now(4)));
}

#[test]
fn every_theme() {
    let mut client = open(Context::default());
    for theme in Theme::ALL {
        let input = Input { theme, code: theme.as_str(), props: "", page: None, true_ts: None };
        client.track(now(3), input).unwrap();
    }
    compare("good/themes.json", &upload(&mut client, now(4)));
}

#[test]
fn golden_receipts_are_read() {
    let read = |name: &str| Receipt::decode(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap();
    let mixed = read("receipts/mixed.json");
    assert_eq!(mixed.batch_id, Id::parse("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").unwrap());
    assert_eq!((mixed.server_time, mixed.stored, mixed.duplicate.as_slice()), (1_431_835_512_345, 2, &[3][..]));
    assert_eq!(
        mixed.rejected.iter().map(|r| (r.index, r.reason.as_str())).collect::<Vec<_>>(),
        [(1, "property_too_deep"), (4, "missing_field")]
    );
    assert!(mixed.accounts_for(5));
    assert!(read("receipts/all_stored.json").accounts_for(2));
}
