//! Decodes a batch. An invalid envelope refuses the whole request; events are decoded one by one, so that an invalid
//! event does not affect the others.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::deserialize::{Elements, ElementsSeed, Millis, MonoMillis, object};
use super::response::{Problem, ProblemCode};
use super::text::WireText;
use crate::limits::Limits;
use crate::outcome::{Actual, MAX_PATH_BYTES, RejectReason, Violation, truncate};
use crate::{Id, VERSION};

/// Longest error message of the JSON reader that is passed on, bytes.
const DETAIL_BYTES: usize = 512;

/// A batch with a valid envelope. Decode its events one by one with [`super::WireEvent::decode`].
#[derive(Clone, Debug)]
pub struct WireBatch<'a> {
    /// Identity of the batch.
    pub batch_id: Id,
    /// Install that sent it.
    pub install_id: Id,
    /// Device clock at sending, milliseconds since the epoch; not plausible in every case.
    pub sent_at: i64,
    /// Monotonic device clock at sending, milliseconds.
    pub sent_mono: Option<u64>,
    /// Device clock at the first sending of this batch, milliseconds since the epoch; not plausible in every case.
    pub first_sent_at: Option<i64>,
    /// App, SDK, host and device. Absent texts are empty.
    pub context: crate::codec::encode::Context,
    /// Common properties, a JSON object within the limits.
    pub common: Option<&'a RawValue>,
    /// Events, not decoded yet; at least one.
    pub events: Vec<&'a RawValue>,
}

#[derive(Default)]
struct RawBatch<'a> {
    v: Option<u64>,
    batch_id: Option<WireText<'a>>,
    install_id: Option<WireText<'a>>,
    sent_at: Option<Millis>,
    sent_mono: Option<MonoMillis>,
    first_sent_at: Option<Millis>,
    app: Option<RawApp<'a>>,
    sdk: Option<RawSdk<'a>>,
    host: Option<RawHost<'a>>,
    device: Option<RawDevice<'a>>,
    network: Option<WireText<'a>>,
    common: Option<&'a RawValue>,
    ledger: Option<RawLedger<'a>>,
    events: Option<Elements<'a>>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    V,
    BatchId,
    InstallId,
    SentAt,
    SentMono,
    FirstSentAt,
    App,
    Sdk,
    Host,
    Device,
    Network,
    Common,
    Ledger,
    Events,
    #[serde(other)]
    Other,
}

object! {
    #[derive(Default)]
    struct RawApp<'a> {
        #[serde(borrow)]
        version: Option<WireText<'a>>,
    }
}

object! {
    #[derive(Default)]
    struct RawSdk<'a> {
        #[serde(borrow)]
        name: Option<WireText<'a>>,
        #[serde(borrow)]
        version: Option<WireText<'a>>,
    }
}

object! {
    #[derive(Default)]
    struct RawHost<'a> {
        #[serde(borrow)]
        platform: Option<WireText<'a>>,
        #[serde(borrow)]
        app: Option<WireText<'a>>,
        #[serde(borrow)]
        version: Option<WireText<'a>>,
    }
}

object! {
    #[derive(Default)]
    struct RawDevice<'a> {
        #[serde(borrow)]
        os: Option<WireText<'a>>,
        #[serde(borrow)]
        os_version: Option<WireText<'a>>,
        #[serde(borrow)]
        brand: Option<WireText<'a>>,
        #[serde(borrow)]
        model: Option<WireText<'a>>,
        #[serde(borrow)]
        screen: Option<WireText<'a>>,
        #[serde(borrow)]
        language: Option<WireText<'a>>,
        #[serde(borrow)]
        timezone: Option<WireText<'a>>,
    }
}

object! {
    /// Ledger of the client. Only its shape is checked; the numbers are not used here.
    #[allow(dead_code)]
    struct RawLedger<'a> {
        generated: Option<u64>,
        acked: Option<u64>,
        queued: Option<u64>,
        #[serde(borrow)]
        dropped: Option<RawDropped<'a>>,
    }
}

/// Numbers by reason. The client defines the reasons, so any name is valid.
struct RawDropped<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Deserialize<'de> for RawDropped<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counts;
        impl<'de> Visitor<'de> for Counts {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
                while map.next_entry::<IgnoredAny, u64>()?.is_some() {}
                Ok(())
            }
        }
        deserializer.deserialize_map(Counts).map(|()| Self(PhantomData))
    }
}

/// Deserializes a batch. Not derived, because the number of events that are kept is a parameter.
struct BatchSeed {
    max_events: u64,
}

impl<'de> DeserializeSeed<'de> for BatchSeed {
    type Value = RawBatch<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawBatch<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// Deserializes the value of a field; a field that occurs twice is an error.
fn set_once<'de, T: Deserialize<'de>, M: MapAccess<'de>>(
    place: &mut Option<T>,
    name: &'static str,
    map: &mut M,
) -> Result<(), M::Error> {
    if place.is_some() {
        return Err(M::Error::duplicate_field(name));
    }
    *place = map.next_value()?;
    Ok(())
}

impl<'de> Visitor<'de> for BatchSeed {
    type Value = RawBatch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawBatch<'de>, M::Error> {
        let mut wire = RawBatch::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::V => set_once(&mut wire.v, "v", &mut map)?,
                Key::BatchId => set_once(&mut wire.batch_id, "batch_id", &mut map)?,
                Key::InstallId => set_once(&mut wire.install_id, "install_id", &mut map)?,
                Key::SentAt => set_once(&mut wire.sent_at, "sent_at", &mut map)?,
                Key::SentMono => set_once(&mut wire.sent_mono, "sent_mono", &mut map)?,
                Key::FirstSentAt => set_once(&mut wire.first_sent_at, "first_sent_at", &mut map)?,
                Key::App => set_once(&mut wire.app, "app", &mut map)?,
                Key::Sdk => set_once(&mut wire.sdk, "sdk", &mut map)?,
                Key::Host => set_once(&mut wire.host, "host", &mut map)?,
                Key::Device => set_once(&mut wire.device, "device", &mut map)?,
                Key::Network => set_once(&mut wire.network, "network", &mut map)?,
                Key::Common => set_once(&mut wire.common, "common", &mut map)?,
                Key::Ledger => set_once(&mut wire.ledger, "ledger", &mut map)?,
                Key::Events if wire.events.is_some() => return Err(M::Error::duplicate_field("events")),
                Key::Events => wire.events = map.next_value_seed(ElementsSeed(self.max_events))?,
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(wire)
    }
}

/// Decodes a batch from its decompressed body.
///
/// # Errors
/// The problem to refuse the whole request with: the body is not JSON (with the position), a field of the envelope is
/// missing or wrong, the version is not supported, or the batch has no events or more than `events_per_batch`.
pub fn decode<'a>(body: &'a [u8], limits: &Limits) -> Result<WireBatch<'a>, Problem> {
    let whole = || BatchSeed { max_events: limits.events_per_batch };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let wire = whole().deserialize(&mut deserializer).and_then(|wire| deserializer.end().map(|()| wire));
    let wire: RawBatch<'a> = wire.map_err(|error| explain(body, &error, whole()))?;
    let version = required(wire.v, "v")?;
    if version != VERSION {
        return Err(Problem::new(
            ProblemCode::UnsupportedVersion,
            format!("v is {version}; this collector speaks {VERSION}"),
        )
        .at("v")
        .limit(VERSION, Actual::Number(i64::try_from(version).unwrap_or(i64::MAX))));
    }
    let batch_id = uuid(&required(wire.batch_id, "batch_id")?, "batch_id")?;
    let install_id = uuid(&required(wire.install_id, "install_id")?, "install_id")?;
    let sent_at = required(wire.sent_at, "sent_at")?.0;
    let events = events(wire.events, limits)?;
    let common = non_null(wire.common);
    if let Some(common) = common {
        check_common(common, limits).map_err(|violation| Problem::from_violation(&violation))?;
    }
    let context = context(wire.app, wire.sdk, wire.host, wire.device, wire.network, limits);
    Ok(WireBatch {
        batch_id,
        install_id,
        sent_at,
        sent_mono: wire.sent_mono.and_then(|reading| reading.0),
        first_sent_at: wire.first_sent_at.map(|time| time.0),
        context,
        common,
        events,
    })
}

fn events<'a>(events: Option<Elements<'a>>, limits: &Limits) -> Result<Vec<&'a RawValue>, Problem> {
    let events = required(events, "events")?;
    if events.count == 0 {
        return Err(Problem::new(ProblemCode::NoEvents, "events is empty; a batch has at least one".into())
            .at("events")
            .limit(1, Actual::Number(0)));
    }
    if events.count > limits.events_per_batch {
        let detail = format!("the batch has {} events; at most {} are allowed", events.count, limits.events_per_batch);
        return Err(Problem::new(ProblemCode::TooManyEvents, detail)
            .at("events")
            .limit(limits.events_per_batch, Actual::Number(events.count.cast_signed())));
    }
    Ok(events.kept)
}

/// Checks the common properties. Every event gets a copy of them, so together they are limited to the size of an event.
fn check_common(common: &RawValue, limits: &Limits) -> Result<(), Violation> {
    let bytes = common.get().len() as u64;
    if bytes > limits.event_bytes {
        return Err(Violation::limit_exceeded(RejectReason::InvalidField, "common", limits.event_bytes, bytes));
    }
    crate::json::check_object(common.get(), "common", limits.into())
}

pub(super) fn non_null(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get() != "null")
}

fn required<T>(value: Option<T>, field: &str) -> Result<T, Problem> {
    value.ok_or_else(|| Problem::new(ProblemCode::MissingField, format!("the batch has no {field}")).at(field))
}

fn uuid(text: &str, field: &str) -> Result<Id, Problem> {
    Id::parse(text).ok_or_else(|| {
        let mut problem = Problem::new(ProblemCode::InvalidField, format!("{field} is not a UUID")).at(field);
        problem.got = Some(Actual::text(text));
        problem
    })
}

fn context(
    app: Option<RawApp<'_>>,
    sdk: Option<RawSdk<'_>>,
    host: Option<RawHost<'_>>,
    device: Option<RawDevice<'_>>,
    network: Option<WireText<'_>>,
    limits: &Limits,
) -> crate::codec::encode::Context {
    let (sdk, host, device) = (sdk.unwrap_or_default(), host.unwrap_or_default(), device.unwrap_or_default());
    let bytes = usize::try_from(limits.context_text_bytes).unwrap_or(usize::MAX);
    // Texts of the context are truncated, as the SDK does. A batch from another sender is not refused because of them.
    let own = |text: Option<WireText<'_>>| truncate(&text.unwrap_or_default(), bytes).to_owned();
    crate::codec::encode::Context {
        app_version: own(app.unwrap_or_default().version),
        sdk_name: own(sdk.name),
        sdk_version: own(sdk.version),
        platform: own(host.platform),
        host_app: own(host.app),
        host_version: own(host.version),
        os: own(device.os),
        os_version: own(device.os_version),
        brand: own(device.brand),
        model: own(device.model),
        screen: own(device.screen),
        language: own(device.language),
        timezone: own(device.timezone),
        network: own(network),
    }
}

/// Decodes the body a second time with path tracking, which is slower, to name the field or the position.
fn explain(body: &[u8], error: &serde_json::Error, whole: BatchSeed) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    let is_data = error.is_data();
    // The message quotes the body, and can be as long.
    let message = error.to_string();
    let error = truncate(&message, DETAIL_BYTES);
    if !is_data {
        return Problem::new(ProblemCode::MalformedJson, format!("the body is not JSON: {error}")).at(&place);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut track = serde_path_to_error::Track::new();
    let path = match whole.deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track)) {
        Err(_) => track.path().to_string(),
        Ok(_) => String::new(),
    };
    if path.is_empty() || path == "." {
        return Problem::new(ProblemCode::MalformedJson, format!("the body is not a batch: {error}")).at(&place);
    }
    // The path contains names from the body, and can be as long.
    let path = truncate(&path, MAX_PATH_BYTES);
    Problem::new(ProblemCode::InvalidField, format!("{path}: {error}")).at(path)
}
