//! `[[app]]`: keys, tokens, time zone and rates of the apps.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use serde::Deserialize;
use subway_protocol::limits::PAST_DAYS;
use toml::Spanned;

use super::text::{Secret, Text};
use super::{ConfigError, Source, limits};

/// Settings of one app.
#[derive(Clone, Debug)]
pub struct AppConfig {
    /// Key. It is public, because the SDK sends it.
    pub key: String,
    /// Time zone of its days and hours in metrics.
    pub timezone: TimeZone,
    /// Token for reading its metrics; created at the first start if absent.
    pub read_token: Option<Secret>,
    /// Secret of signed requests. If given, every request must be signed.
    pub secret: Option<Secret>,
    /// Limit of requests a second.
    pub requests_per_second: Option<u64>,
    /// Limit of events a second.
    pub events_per_second: Option<u64>,
    /// Limit of bytes of events a second, decompressed and with common properties copied to each event.
    pub bytes_per_second: Option<u64>,
    /// Largest age of an event at its arrival, days.
    pub past_days: u64,
    /// Days for which its event IDs are remembered, instead of those of `[limits]`.
    pub dedup_days: Option<u64>,
    /// Cap of its event IDs on disk, bytes, instead of that of `[limits]`.
    pub dedup_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    key: Spanned<Text>,
    timezone: Spanned<Text>,
    read_token: Option<Spanned<Text>>,
    secret: Option<Spanned<Text>>,
    requests_per_second: Option<Spanned<u64>>,
    events_per_second: Option<Spanned<u64>>,
    bytes_per_second: Option<Spanned<u64>>,
    past_days: Option<Spanned<u64>>,
    dedup_days: Option<Spanned<u64>>,
    dedup_bytes: Option<Spanned<u64>>,
}

/// Largest rate: far beyond what one machine ingests, and small enough for the arithmetic of the buckets.
const MAX_PER_SECOND: u64 = 1_000_000_000;

/// Largest `past_days`: a century, which reaches before the epoch.
const MAX_PAST_DAYS: u64 = 36_500;

/// Longest key, bytes: it is part of URLs and file names.
const MAX_KEY_BYTES: usize = 64;

fn is_key(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES
        && key.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'))
}

impl AppConfig {
    pub(super) fn demo() -> Self {
        // The zone is compiled in; UTC is for a build without it.
        let timezone = TimeZone::get("Asia/Shanghai").unwrap_or(TimeZone::UTC);
        Self {
            key: "demo".into(),
            timezone,
            read_token: None,
            secret: None,
            requests_per_second: None,
            events_per_second: None,
            bytes_per_second: None,
            past_days: PAST_DAYS,
            dedup_days: None,
            dedup_bytes: None,
        }
    }
}

fn rate(source: &Source<'_>, key: &str, rate: Option<Spanned<u64>>) -> Result<Option<u64>, ConfigError> {
    match rate {
        Some(rate) if !(1..=MAX_PER_SECOND).contains(rate.get_ref()) => {
            let why = format!("must be 1 to {MAX_PER_SECOND}; without it there is no limit");
            Err(source.error(rate.span(), key, why))
        }
        rate => Ok(rate.map(Spanned::into_inner)),
    }
}

fn within(
    source: &Source<'_>,
    key: &str,
    value: Option<Spanned<u64>>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, ConfigError> {
    match value {
        Some(value) if !range.contains(value.get_ref()) => {
            let why = format!("must be {} to {}", range.start(), range.end());
            Err(source.error(value.span(), key, why))
        }
        value => Ok(value.map(Spanned::into_inner)),
    }
}

pub(super) fn parse_all(source: &Source<'_>, tables: Vec<Spanned<Table>>) -> Result<Vec<AppConfig>, ConfigError> {
    if tables.is_empty() {
        return Err(source.error(0..0, "app", "at least one [[app]] is needed"));
    }
    let mut seen = HashSet::new();
    let mut apps = Vec::new();
    for table in tables {
        let table = table.into_inner();
        let key = table.key.get_ref().to_string();
        if !is_key(&key) {
            let why = "must be [A-Za-z0-9][A-Za-z0-9_.-]{0,63}";
            return Err(source.error(table.key.span(), "app.key", why));
        }
        if !seen.insert(key.clone()) {
            return Err(source.error(table.key.span(), "app.key", format!("{key} is there twice")));
        }
        let timezone = TimeZone::get(table.timezone.get_ref()).map_err(|_| {
            source.error(table.timezone.span(), "app.timezone", "is not an IANA time zone, such as Asia/Shanghai")
        })?;
        let secret = match table.secret {
            Some(secret) if secret.get_ref().is_empty() => {
                return Err(source.error(secret.span(), "app.secret", "must not be empty"));
            }
            secret => secret.map(|secret| Secret::new(secret.get_ref().to_string())),
        };
        let read_token = table.read_token.map(|token| Secret::token(source, "app.read_token", token)).transpose()?;
        let requests_per_second = rate(source, "app.requests_per_second", table.requests_per_second)?;
        let events_per_second = rate(source, "app.events_per_second", table.events_per_second)?;
        let bytes_per_second = rate(source, "app.bytes_per_second", table.bytes_per_second)?;
        let past_days = within(source, "app.past_days", table.past_days, 1..=MAX_PAST_DAYS)?.unwrap_or(PAST_DAYS);
        let dedup_days = within(source, "app.dedup_days", table.dedup_days, limits::DEDUP_DAYS)?;
        let dedup_bytes = within(source, "app.dedup_bytes", table.dedup_bytes, limits::DEDUP_BYTES)?;
        apps.push(AppConfig {
            key,
            timezone,
            read_token,
            secret,
            requests_per_second,
            events_per_second,
            bytes_per_second,
            past_days,
            dedup_days,
            dedup_bytes,
        });
    }
    Ok(apps)
}
