//! Parts of a request besides its JSON: gzip, signature, query string, forwarded address.

use std::io::Read;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use subway_analytics::{Interval, Metric, MetricRequest, SortKey, parse_time, utc};
use subway_collector::fuzzing;
use subway_protocol::codec::server::ProblemCode;

/// Small, so that the fuzzer reaches it.
const INFLATED: u64 = 10_000;

/// Compares the decompression of a gzip body with another implementation.
pub fn inflate(data: &[u8]) {
    let ours = fuzzing::inflate(data, INFLATED);
    let mut theirs = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(data).take(INFLATED + 1).read_to_end(&mut theirs);
    match ours {
        Ok(ours) => assert!(read.is_ok() && ours == theirs),
        Err(ProblemCode::DecompressedTooLarge) => assert_eq!(theirs.len() as u64, INFLATED + 1),
        // What is damaged beyond the limit may be reported as either.
        Err(code) => {
            let damaged = read.is_err() || theirs.len() as u64 > INFLATED;
            assert!(code == ProblemCode::MalformedGzip && damaged, "{code:?}");
        }
    }
}

/// Checks a signature. Input: header, a line break, body. Only the valid header is accepted.
pub fn signature(data: &[u8]) {
    let Some(at) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (header, body) = (&data[..at], &data[at + 1..]);
    let Ok(header) = std::str::from_utf8(header) else { return };
    let now = 1_431_835_512_000;
    let (accepted, right) = fuzzing::signature(header, "key", body, now);
    assert!(!accepted || header.trim().to_ascii_lowercase().replace([' ', '\t'], "") == right, "{header}");
    assert!(fuzzing::signature(&right, "key", body, now).0);
    // A wrong signature with a valid time.
    let forged = format!("t={now},v1={header}");
    assert!(!fuzzing::signature(&forged, "key", body, now).0 || forged.trim().eq_ignore_ascii_case(&right));
}

/// Zones with offsets of seconds, of half hours, with days that do not exist, without any change.
const ZONES: [&str; 6] =
    ["Asia/Shanghai", "UTC", "America/St_Johns", "Pacific/Apia", "Africa/Monrovia", "Antarctica/Troll"];

/// Parses a query. The first byte chooses a zone, the second a metric; the rest is a query string.
pub fn query(data: &[u8]) {
    let [zone, metric, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let zone = TimeZone::get(ZONES[usize::from(*zone) % ZONES.len()]).unwrap();
    let metric = Metric::ALL[usize::from(*metric) % Metric::ALL.len()];
    let Some(pairs) = fuzzing::pairs(text) else { return };
    match fuzzing::events_query(&zone, &pairs) {
        Err(error) => {
            // A parameter can have an empty name, which the error then names.
            let nameless = pairs.iter().any(|(name, _)| name.is_empty());
            assert!((nameless || !error.field.is_empty()) && !error.detail.is_empty());
        }
        Ok(query) => {
            if let Some(mark) = query.after {
                assert_eq!(mark.to_string().parse::<SortKey>(), Ok(mark));
                assert!(i64::try_from(mark.position).is_ok());
            }
        }
    }
    let now = Timestamp::from_millisecond(1_431_835_512_000).unwrap();
    let Ok(request) = MetricRequest::parse(metric, "demo", &pairs, &zone, now) else { return };
    let bounds = &request.query.bounds;
    assert_eq!(bounds.len(), request.starts.len() + 1);
    assert!(bounds.is_sorted_by(|a, b| a < b) && request.starts.is_sorted_by(|a, b| a < b), "{bounds:?}");
    assert!(request.starts[0] <= bounds[0] || request.interval == Interval::Total);
    assert!(request.starts[1..] == bounds[1..bounds.len() - 1]);
}

/// Parses a time. The first byte chooses a zone. A formatted time must parse to the same.
pub fn time(data: &[u8]) {
    let [zone, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let zone = TimeZone::get(ZONES[usize::from(*zone) % ZONES.len()]).unwrap();
    let Ok(millis) = parse_time(text, &zone) else { return };
    if (0..=subway_protocol::limits::MAX_TIME_MS).contains(&millis) {
        assert_eq!(parse_time(&utc(millis), &zone), Ok(millis), "{text}");
    }
}

/// Parses a forwarded address, which counts only from a trusted proxy.
pub fn forwarded(data: &[u8]) {
    assert!(fuzzing::forwarded(data, [192, 0, 2, 1]));
    let _ = fuzzing::forwarded(data, [10, 0, 0, 1]);
}

/// Parses the header `Retry-After`: seconds or a date.
pub fn retry_after(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(wait) = subway_mobile::transport::retry_after(text, std::time::UNIX_EPOCH) else { return };
    match text.trim().parse::<u64>() {
        Ok(seconds) => assert_eq!(wait, seconds.saturating_mul(1000), "{text}"),
        Err(_) => assert!(wait % 1000 == 0 || wait == u64::MAX, "{text}"),
    }
}

/// Parses a configuration; an error must be one line.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Skips names that would be looked up in the network, and files.
    if ["listen", "cert", "tls"].iter().any(|word| text.contains(word)) {
        return;
    }
    match subway_collector::config::Config::parse(text) {
        Ok(config) => assert!(!config.apps.is_empty()),
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.contains('\n'), "{said}");
        }
    }
}
