//! `[limits]`: the limits of the wire under the names of `subway_protocol::Limits`, and the collector's own.

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Source};

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $default:expr, $range:expr;)*) => {
        /// Every limit in force. The first twelve are those of the wire.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            /// The limits of the wire; see [`subway_protocol::limits`].
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
            pub(super) fn checked(self, source: &Source<'_>) -> Result<Limits, ConfigError> {
                let mut limits = Limits::default();
                let wire = &mut limits.wire;
                put(source, "body_bytes", self.body_bytes, 1..=GIB, &mut wire.body_bytes)?;
                put(source, "decompressed_bytes", self.decompressed_bytes, 1..=GIB, &mut wire.decompressed_bytes)?;
                put(source, "events_per_batch", self.events_per_batch, 1..=1_000_000, &mut wire.events_per_batch)?;
                put(source, "event_bytes", self.event_bytes, 1..=GIB, &mut wire.event_bytes)?;
                put(source, "properties", self.properties, 1..=1_000_000, &mut wire.properties)?;
                put(source, "depth", self.depth, 1..=64, &mut wire.depth)?;
                put(source, "key_bytes", self.key_bytes, 1..=GIB, &mut wire.key_bytes)?;
                put(source, "text_bytes", self.text_bytes, 1..=GIB, &mut wire.text_bytes)?;
                put(source, "context_text_bytes", self.context_text_bytes, 1..=64 * KIB, &mut wire.context_text_bytes)?;
                let mut future_ms = wire.future_ms.unsigned_abs();
                put(source, "future_ms", self.future_ms, 0..=366 * DAY_MS, &mut future_ms)?;
                wire.future_ms = future_ms.cast_signed();
                put_time(source, "clock_tolerance_ms", self.clock_tolerance_ms, &mut wire.clock_tolerance_ms)?;
                put_time(source, "signature_age_ms", self.signature_age_ms, &mut wire.signature_age_ms)?;
                let at = self.in_flight_bytes.as_ref().map_or(0..0, Spanned::span);
                let derives_per_ip = self.connections_per_ip.is_none();
                $(put(source, stringify!($name), self.$name, $range, &mut limits.$name)?;)*
                if derives_per_ip {
                    limits.connections_per_ip = per_ip(limits.connections);
                }
                // The body as sent, as it is after inflation, what is decoded from it, and the record made of that; of which one
                // app gets no more than two thirds.
                let needed = (limits.wire.body_bytes + 3 * limits.wire.decompressed_bytes) * 3 / 2;
                if limits.in_flight_bytes < needed {
                    let why = format!("must be at least 1.5 * (body_bytes + 3 * decompressed_bytes), here {needed}, or the largest batch is never taken");
                    return Err(source.error(at, "limits.in_flight_bytes", why));
                }
                Ok(limits)
            }
        }

        impl Limits {
            /// Every key of `[limits]` with its value here, in the order of the documentation.
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

/// What one client address may have of so many connections unless the configuration says otherwise.
const fn per_ip(connections: u64) -> u64 {
    connections.div_ceil(2)
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
/// The longest time a limit may name, milliseconds: a day. Beyond it nothing is limited any more.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What may be asked for; at most a century.
pub(super) const DEDUP_DAYS: std::ops::RangeInclusive<u64> = 1..=36_500;
/// What may be asked for. With less than some thousand IDs an index is no help.
pub(super) const DEDUP_BYTES: std::ops::RangeInclusive<u64> = 64 * KIB..=1024 * 1024 * GIB;

limits! {
    /// Connections open at once. An idle one costs a socket and 13 KiB, with TLS 23 KiB (`cargo xtask bench`); further ones
    /// are told 503 and closed.
    connections = 10_000, 1..=1_000_000;
    /// Connections open at once from one client address (of IPv6: one /64); further ones are told 429 and closed. Half of
    /// `connections` unless it is given: no address can take all, and one that thousands of phones share (a mobile network) or a
    /// proxy that nobody has declared has thousands. 0 is no limit. Trusted proxies are exempt.
    connections_per_ip = per_ip(10_000), 0..=1_000_000;
    /// Time for a TLS handshake, milliseconds. Two round trips of the slowest network, and nobody holds a place with less.
    tls_handshake_timeout_ms = 10_000, 1..=DAY_MS;
    /// Bytes of one request's head. Ours need a few hundred.
    max_header_bytes = 16 * KIB, 8 * KIB..=MIB;
    /// Time for a request's head to arrive, and for an idle connection to wait for the next request, milliseconds.
    header_timeout_ms = 30_000, 1..=DAY_MS;
    /// Time for a request's body to arrive, milliseconds. Slow senders must not hold memory for ever.
    body_timeout_ms = 60_000, 1..=DAY_MS;
    /// Requests a second to `/v1/*` that one client address (of IPv6: one /64) may make; further ones are told 429. 0 is no
    /// limit: an address may be a proxy, or a mobile network's that thousands of phones share. Set it where the collector sees its
    /// clients' own addresses.
    requests_per_second = 0, 0..=1_000_000_000;
    /// Requests of one client address that may come at once: a device that was offline sends its backlog. At least a
    /// second's worth counts. Without effect where `requests_per_second` is 0.
    request_burst = 100, 1..=1_000_000_000;
    /// Bytes of requests being worked on: bodies, their decompressed form, and what waits for the commit. It bounds the
    /// collector's memory; beyond it clients are told 503.
    in_flight_bytes = 256 * MIB, MIB..=1024 * GIB;
    /// Requests that may wait for the spool's writer. Beyond it clients are told 503 rather than kept waiting.
    queue_requests = 1024, 3..=1_000_000;
    /// Bytes of JSON that one commit of the spool may hold. Bounds how long the first of a group waits for the others.
    commit_bytes = 16 * MIB, KIB..=GIB;
    /// Bytes of JSON in the spool that a sink has not taken yet. It bounds the disk that a dead sink can cost; beyond it
    /// clients are told 503.
    spool_max_bytes = 8 * GIB, KIB..=1024 * 1024 * GIB;
    /// Bytes that the dead letters of one sink may take. It bounds the disk that a store which refuses much can cost; beyond it the
    /// oldest are dropped, and stay counted.
    dead_letter_bytes = GIB, 64 * KIB..=1024 * 1024 * GIB;
    /// Days for which an event ID is remembered, so that the event is known when it comes again. A device that was away
    /// longer is rare; `[[app]]` can say otherwise.
    dedup_days = 90, DEDUP_DAYS;
    /// Bytes that the IDs of one app take on disk, 18 to 21 each; beyond it the oldest are forgotten. It bounds what one app's
    /// flood can cost, and ends only that app's horizon; `[[app]]` can say otherwise.
    dedup_bytes = 8 * GIB, DEDUP_BYTES;
    /// Bytes of memory for the filters of the IDs on disk, 1.5 an ID. Beyond it the largest parts are searched on disk.
    dedup_memory_bytes = 256 * MIB, 0..=1024 * GIB;
    /// IDs in memory (17 to 34 bytes each) before they are written to files; twice as many while they are written, up to four
    /// times where the disk is slow. Writing takes 16 bytes more for each that is written.
    dedup_fresh_ids = 900_000, 100..=100_000_000;
    /// Installs of one app whose clocks are remembered, about 100 bytes of disk each: those of an install keep its events in
    /// order over a clock that jumps.
    install_clocks = 1_000_000, 2..=1_000_000_000;
    /// Bytes of events in one answer of the reading API; what is left is asked for with the answer's `next`. Answers are
    /// written as they are read, so it bounds time and the client's memory, not the collector's.
    answer_bytes = 64 * MIB, KIB..=1024 * GIB;
}

fn put(
    source: &Source<'_>,
    key: &str,
    value: Option<Spanned<u64>>,
    range: std::ops::RangeInclusive<u64>,
    place: &mut u64,
) -> Result<(), ConfigError> {
    let Some(value) = value else { return Ok(()) };
    if !range.contains(value.get_ref()) {
        let why = format!("must be {} to {}", range.start(), range.end());
        return Err(source.error(value.span(), &format!("limits.{key}"), why));
    }
    *place = value.into_inner();
    Ok(())
}

fn put_time(source: &Source<'_>, key: &str, value: Option<Spanned<u64>>, place: &mut i64) -> Result<(), ConfigError> {
    let mut millis = place.unsigned_abs();
    put(source, key, value, 0..=DAY_MS, &mut millis)?;
    *place = i64::try_from(millis).unwrap_or(i64::MAX);
    Ok(())
}
