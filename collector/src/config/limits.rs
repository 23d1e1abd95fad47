//! `[limits]`: limits of the wire under the names of `subway_protocol::Limits`, and the collector's own.

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Source};

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $default:expr, $range:expr;)*) => {
        /// Limits in force. The first twelve are those of the wire.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            /// Limits of the wire; see [`subway_protocol::limits`].
            pub wire: subway_protocol::Limits,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { wire: subway_protocol::Limits::default(), $($name: $default,)* }
            }
        }

        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct Table {
            body_bytes: Option<Spanned<u64>>,
            decompressed_bytes: Option<Spanned<u64>>,
            events_per_batch: Option<Spanned<u64>>,
            event_bytes: Option<Spanned<u64>>,
            properties: Option<Spanned<u64>>,
            depth: Option<Spanned<u64>>,
            key_bytes: Option<Spanned<u64>>,
            text_bytes: Option<Spanned<u64>>,
            context_text_bytes: Option<Spanned<u64>>,
            future_ms: Option<Spanned<u64>>,
            clock_tolerance_ms: Option<Spanned<u64>>,
            signature_age_ms: Option<Spanned<u64>>,
            $($name: Option<Spanned<u64>>,)*
        }

        impl Table {
            pub(super) fn validate(self, source: &Source<'_>) -> Result<Limits, ConfigError> {
                let mut limits = Limits::default();
                let wire = &mut limits.wire;
                set_number(source, "body_bytes", self.body_bytes, 1..=GIB, &mut wire.body_bytes)?;
                set_number(source, "decompressed_bytes", self.decompressed_bytes, 1..=GIB, &mut wire.decompressed_bytes)?;
                set_number(source, "events_per_batch", self.events_per_batch, 1..=1_000_000, &mut wire.events_per_batch)?;
                set_number(source, "event_bytes", self.event_bytes, 1..=GIB, &mut wire.event_bytes)?;
                set_number(source, "properties", self.properties, 1..=1_000_000, &mut wire.properties)?;
                set_number(source, "depth", self.depth, 1..=64, &mut wire.depth)?;
                set_number(source, "key_bytes", self.key_bytes, 1..=GIB, &mut wire.key_bytes)?;
                set_number(source, "text_bytes", self.text_bytes, 1..=GIB, &mut wire.text_bytes)?;
                set_number(source, "context_text_bytes", self.context_text_bytes, 1..=64 * KIB, &mut wire.context_text_bytes)?;
                let mut future_ms = wire.future_ms.unsigned_abs();
                set_number(source, "future_ms", self.future_ms, 0..=366 * DAY_MS, &mut future_ms)?;
                wire.future_ms = future_ms.cast_signed();
                set_time(source, "clock_tolerance_ms", self.clock_tolerance_ms, &mut wire.clock_tolerance_ms)?;
                set_time(source, "signature_age_ms", self.signature_age_ms, &mut wire.signature_age_ms)?;
                let at = self.in_flight_bytes.as_ref().map_or(0..0, Spanned::span);
                let is_derived = self.connections_per_ip.is_none();
                $(set_number(source, stringify!($name), self.$name, $range, &mut limits.$name)?;)*
                if is_derived {
                    limits.connections_per_ip = default_connections_per_ip(limits.connections);
                }
                // The body as sent, the inflated body, the decoded batch and its record. One app gets at most two
                // thirds.
                let needed = (limits.wire.body_bytes + 3 * limits.wire.decompressed_bytes) * 3 / 2;
                if limits.in_flight_bytes < needed {
                    let why = format!("must be at least 1.5 * (body_bytes + 3 * decompressed_bytes), here {needed}, or the largest batch is never taken");
                    return Err(source.error(at, "limits.in_flight_bytes", why));
                }
                Ok(limits)
            }
        }

        impl Limits {
            /// Returns every key of `[limits]` with its value, in the order of the documentation.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                let wire = &self.wire;
                vec![
                    ("body_bytes", wire.body_bytes),
                    ("decompressed_bytes", wire.decompressed_bytes),
                    ("events_per_batch", wire.events_per_batch),
                    ("event_bytes", wire.event_bytes),
                    ("properties", wire.properties),
                    ("depth", wire.depth),
                    ("key_bytes", wire.key_bytes),
                    ("text_bytes", wire.text_bytes),
                    ("context_text_bytes", wire.context_text_bytes),
                    ("future_ms", wire.future_ms.unsigned_abs()),
                    ("clock_tolerance_ms", wire.clock_tolerance_ms.unsigned_abs()),
                    ("signature_age_ms", wire.signature_age_ms.unsigned_abs()),
                    $((stringify!($name), self.$name),)*
                ]
            }
        }
    };
}

/// Returns the default of `connections_per_ip`.
const fn default_connections_per_ip(connections: u64) -> u64 {
    connections.div_ceil(2)
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
/// Longest time that a limit can have, milliseconds. Longer than a day limits nothing.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Range of `dedup_days`; at most a century.
pub(super) const DEDUP_DAYS: std::ops::RangeInclusive<u64> = 1..=36_500;
/// Range of `dedup_bytes`. An index of less than some thousand IDs is of no use.
pub(super) const DEDUP_BYTES: std::ops::RangeInclusive<u64> = 64 * KIB..=1024 * 1024 * GIB;

limits! {
    /// Connections open at once; further ones are answered with 503 and closed. An idle one costs a socket and 13 KiB,
    /// with TLS 23 KiB (`cargo xtask bench`).
    connections = 10_000, 1..=1_000_000;
    /// Connections open at once from one client address (of IPv6: one /64); further ones are answered with 429 and
    /// closed. 0 is no limit. Trusted proxies are exempt.
    ///
    /// The default is half of `connections`: no address can use all, and an address that thousands of phones share (a
    /// mobile network, or a proxy that is not declared) still has thousands.
    connections_per_ip = default_connections_per_ip(10_000), 0..=1_000_000;
    /// Time for a TLS handshake, milliseconds: two round trips of the slowest network. A longer one lets clients hold
    /// connections without sending anything.
    tls_handshake_timeout_ms = 10_000, 1..=DAY_MS;
    /// Bytes of the header of one request. Those of our clients need a few hundred.
    max_header_bytes = 16 * KIB, 8 * KIB..=MIB;
    /// Time for the header of a request to arrive, and for an idle connection to wait for the next request,
    /// milliseconds.
    header_timeout_ms = 30_000, 1..=DAY_MS;
    /// Time for the body of a request to arrive, and for a client to read some of its answer, milliseconds. Without it,
    /// slow clients would hold memory for ever.
    body_timeout_ms = 60_000, 1..=DAY_MS;
    /// Requests a second to `/v1/*` from one client address (of IPv6: one /64); further ones are answered with 429. 0
    /// is no limit.
    ///
    /// It is off by default, because an address can be a proxy, or one that thousands of phones of a mobile network
    /// share. Set it where the collector sees the addresses of its clients.
    requests_per_second = 0, 0..=1_000_000_000;
    /// Burst of one client address, requests: a device that was offline sends its backlog. At least the requests of one
    /// second count. It has no effect if `requests_per_second` is 0.
    request_burst = 100, 1..=1_000_000_000;
    /// Bytes of requests in progress: bodies, their decompressed form, and what waits for the commit. It bounds the
    /// memory of the collector; a request beyond it is answered with 503.
    in_flight_bytes = 256 * MIB, MIB..=1024 * GIB;
    /// Requests that can wait for the spool's writer. A request beyond it is answered with 503 instead of waiting.
    queue_requests = 1024, 3..=1_000_000;
    /// Bytes of JSON in one commit of the spool. It bounds how long the first request of a group waits for the others.
    commit_bytes = 16 * MIB, KIB..=GIB;
    /// Bytes of JSON in the spool that a sink has not delivered yet. It bounds the disk that a failing sink can use;
    /// beyond it requests are answered with 503.
    spool_max_bytes = 8 * GIB, KIB..=1024 * 1024 * GIB;
    /// Bytes of the dead letters of one sink. It bounds the disk that a store which refuses much can use; beyond it the
    /// oldest are dropped, and stay counted.
    dead_letter_bytes = GIB, 64 * KIB..=1024 * 1024 * GIB;
    /// Days for which an event ID is remembered, so that the event is a duplicate when it is sent again. A device that
    /// is offline longer is rare. `[[app]]` can override it.
    dedup_days = 90, DEDUP_DAYS;
    /// Bytes of the IDs of one app on disk, 18 to 26 for each; beyond it the oldest are forgotten. It bounds what a
    /// flood of one app can use, and shortens only the horizon of that app. `[[app]]` can override it.
    dedup_bytes = 8 * GIB, DEDUP_BYTES;
    /// Bytes of memory for the filters of the IDs on disk, 1.5 for each ID. Beyond it the largest parts are searched on
    /// disk.
    dedup_memory_bytes = 256 * MIB, 0..=1024 * GIB;
    /// IDs in memory, 17 to 34 bytes each, before they are written to files. While they are written there are twice as
    /// many, up to four times on a slow disk, and each that is written takes 16 bytes more.
    dedup_fresh_ids = 900_000, 100..=100_000_000;
    /// Installs of one app whose clocks are remembered, about 100 bytes of disk each. A remembered clock keeps the
    /// events of an install in order when its clock jumps.
    install_clocks = 1_000_000, 2..=1_000_000_000;
    /// Bytes of events in one answer of the reading API; the answer's `next` continues it. Answers are written as they
    /// are read, so it bounds time and the memory of the client, not that of the collector.
    answer_bytes = 64 * MIB, KIB..=1024 * GIB;
}

fn set_number(
    source: &Source<'_>,
    key: &str,
    value: Option<Spanned<u64>>,
    range: std::ops::RangeInclusive<u64>,
    target: &mut u64,
) -> Result<(), ConfigError> {
    let Some(value) = value else { return Ok(()) };
    if !range.contains(value.get_ref()) {
        let why = format!("must be {} to {}", range.start(), range.end());
        return Err(source.error(value.span(), &format!("limits.{key}"), why));
    }
    *target = value.into_inner();
    Ok(())
}

fn set_time(source: &Source<'_>, key: &str, value: Option<Spanned<u64>>, target: &mut i64) -> Result<(), ConfigError> {
    let mut millis = target.unsigned_abs();
    set_number(source, key, value, 0..=DAY_MS, &mut millis)?;
    *target = i64::try_from(millis).unwrap_or(i64::MAX);
    Ok(())
}
