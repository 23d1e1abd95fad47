//! The same batches for both sides: 100 events of about 391 bytes each, gzip, every ID new.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use subway_protocol::Id;

/// Events in a batch.
pub(crate) const EVENTS: usize = 100;

pub(crate) fn id(kind: u8, number: u64) -> Id {
    let mut random = [kind; 10];
    // Spread like random bits, so that gzip cannot profit from counting.
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    random[2..].copy_from_slice(&mixed.to_be_bytes());
    Id::v7(1_790_000_000_000 + (number / 50) as i64, random)
}

/// One event as JSON.
pub(crate) fn event(number: u64, at: usize) -> String {
    let page = ["pages/index", "pages/list", "pages/item", "pages/cart", "pages/pay"][at % 5];
    format!(
        concat!(
            r#"{{"id":"{}","seq":{},"theme":"{}","code":"{}","ts":{},"mono":{},"boot":"b7f1c0de","user_id":"u{}","#,
            r#""session":{{"id":"{}","index":3,"event":{}}},"page":{{"path":"{}","title":"Home page","referrer":"pages/list"}},"#,
            r#""props":{{"sku":"{}","price":{},"n":{},"from":"search","list":"recommended"}}}}"#
        ),
        id(1, number),
        at + 1,
        ["view", "click", "exposure", "custom"][at % 4],
        ["page_view", "tap", "show", "pay"][at % 4],
        1_790_000_000_000 + number as i64,
        90_000 + at,
        number % 997,
        id(2, number / 100),
        at + 1,
        page,
        number.wrapping_mul(2_654_435_761) % 1_000_000,
        number % 10_000,
        at
    )
}

/// `count` gzip bodies.
pub(crate) fn bodies(count: usize) -> Vec<Vec<u8>> {
    (0..count as u64).map(body).collect()
}

fn body(batch: u64) -> Vec<u8> {
    let events: Vec<String> = (0..EVENTS).map(|at| event(batch * EVENTS as u64 + at as u64, at)).collect();
    let text = format!(
        concat!(
            r#"{{"v":1,"batch_id":"{}","install_id":"{}","sent_at":{},"app":{{"version":"1.2.0"}},"sdk":{{"name":"bench","version":"1"}},"#,
            r#""host":{{"platform":"jd"}},"device":{{"os":"iOS","os_version":"17.1","brand":"Apple"}},"network":"wifi","events":[{}]}}"#
        ),
        id(3, batch),
        id(4, batch % 500),
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
        events.join(",")
    );
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// CPU seconds that a process or thread has used: fields 14 and 15 of its `stat`, in ticks of 10 ms.
pub(crate) fn cpu_seconds(stat: &str) -> f64 {
    let after_name = stat.rsplit_once(')').unwrap().1;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next().unwrap().parse::<f64>().unwrap();
    (ticks() + ticks()) / 100.0
}
