//! Reads a batch. The envelope must be right as a whole; each event is read for itself, so that one bad event never
//! costs its neighbours.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::answer::{Problem, ProblemCode};
use super::shape::{Elements, Millis, Most, Reading, object};
use super::text::Text;
use crate::limits::Limits;
use crate::outcome::{Got, RejectReason, Violation, truncate};
use crate::{Id, VERSION};

/// Longest error message of the JSON reader that is passed on, bytes.
const DETAIL_BYTES: usize = 512;

/// Longest path to the wrong field that is passed on, bytes.
const PATH_BYTES: usize = 256;

/// A batch whose envelope is right. Its events are read one by one with [`super::Event::decode`].
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The batch's identity.
    pub batch_id: Id,
    /// Who sends.
    pub install_id: Id,
    /// Device clock at sending, milliseconds since the epoch; perhaps absurd.
    pub sent_at: i64,
    /// Monotonic device clock at sending, milliseconds.
    pub sent_mono: Option<u64>,
    /// Device clock at the first sending of this batch, milliseconds since the epoch; perhaps absurd.
    pub first_sent_at: Option<i64>,
    /// Who sends, in detail. Absent texts are empty.
    pub context: crate::codec::encode::Context,
    /// Common properties, a JSON object within the limits.
    pub common: Option<&'a RawValue>,
    /// The events, each still to be read; at least one.
    pub events: Vec<&'a RawValue>,
}

#[derive(Default)]
struct WireBatch<'a> {
    v: Option<u64>,
    batch_id: Option<Text<'a>>,
    install_id: Option<Text<'a>>,
    sent_at: Option<Millis>,
    sent_mono: Option<Reading>,
    first_sent_at: Option<Millis>,
    app: Option<WireApp<'a>>,
    sdk: Option<WireSdk<'a>>,
    host: Option<WireHost<'a>>,
    device: Option<WireDevice<'a>>,
    network: Option<Text<'a>>,
    common: Option<&'a RawValue>,
    ledger: Option<WireLedger<'a>>,
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
    struct WireApp<'a> {
        #[serde(borrow)]
        version: Option<Text<'a>>,
    }
}

object! {
    #[derive(Default)]
    struct WireSdk<'a> {
        #[serde(borrow)]
        name: Option<Text<'a>>,
        #[serde(borrow)]
        version: Option<Text<'a>>,
    }
}

object! {
    #[derive(Default)]
    struct WireHost<'a> {
        #[serde(borrow)]
        platform: Option<Text<'a>>,
        #[serde(borrow)]
        app: Option<Text<'a>>,
        #[serde(borrow)]
        version: Option<Text<'a>>,
    }
}

object! {
    #[derive(Default)]
    struct WireDevice<'a> {
        #[serde(borrow)]
        os: Option<Text<'a>>,
        #[serde(borrow)]
        os_version: Option<Text<'a>>,
        #[serde(borrow)]
        brand: Option<Text<'a>>,
        #[serde(borrow)]
        model: Option<Text<'a>>,
        #[serde(borrow)]
        screen: Option<Text<'a>>,
        #[serde(borrow)]
        language: Option<Text<'a>>,
        #[serde(borrow)]
        timezone: Option<Text<'a>>,
    }
}

object! {
    /// The client's own account. What it says is not used here; its shape is checked all the same.
    #[allow(dead_code)]
    struct WireLedger<'a> {
        generated: Option<u64>,
        acked: Option<u64>,
        queued: Option<u64>,
        #[serde(borrow)]
        dropped: Option<WireDropped<'a>>,
    }
}

/// Numbers by reason; which reasons there are is the client's to say.
struct WireDropped<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Deserialize<'de> for WireDropped<'a> {
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

/// Reads a batch. Written by hand because it must know how many events to keep.
struct WholeBatch {
    most_events: u64,
}

impl<'de> DeserializeSeed<'de> for WholeBatch {
    type Value = WireBatch<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<WireBatch<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// Takes the value of a field that must not be there twice.
fn put<'de, T: Deserialize<'de>, M: MapAccess<'de>>(
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

impl<'de> Visitor<'de> for WholeBatch {
    type Value = WireBatch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<WireBatch<'de>, M::Error> {
        let mut wire = WireBatch::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::V => put(&mut wire.v, "v", &mut map)?,
                Key::BatchId => put(&mut wire.batch_id, "batch_id", &mut map)?,
                Key::InstallId => put(&mut wire.install_id, "install_id", &mut map)?,
                Key::SentAt => put(&mut wire.sent_at, "sent_at", &mut map)?,
                Key::SentMono => put(&mut wire.sent_mono, "sent_mono", &mut map)?,
                Key::FirstSentAt => put(&mut wire.first_sent_at, "first_sent_at", &mut map)?,
                Key::App => put(&mut wire.app, "app", &mut map)?,
                Key::Sdk => put(&mut wire.sdk, "sdk", &mut map)?,
                Key::Host => put(&mut wire.host, "host", &mut map)?,
                Key::Device => put(&mut wire.device, "device", &mut map)?,
                Key::Network => put(&mut wire.network, "network", &mut map)?,
                Key::Common => put(&mut wire.common, "common", &mut map)?,
                Key::Ledger => put(&mut wire.ledger, "ledger", &mut map)?,
                Key::Events if wire.events.is_some() => return Err(M::Error::duplicate_field("events")),
                Key::Events => wire.events = map.next_value_seed(Most(self.most_events))?,
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(wire)
    }
}

/// Reads a batch from its decompressed body.
///
/// # Errors
/// The problem to refuse the whole request with: not JSON (the place named), a field of the envelope missing or wrong,
/// another version, no events, more events than `events_per_batch`.
pub fn decode<'a>(body: &'a [u8], limits: &Limits) -> Result<Batch<'a>, Problem> {
    let whole = || WholeBatch { most_events: limits.events_per_batch };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let wire = whole().deserialize(&mut deserializer).and_then(|wire| deserializer.end().map(|()| wire));
    let wire: WireBatch<'a> = wire.map_err(|error| explain(body, &error, whole()))?;
    let version = required(wire.v, "v")?;
    if version != VERSION {
        return Err(Problem::new(
            ProblemCode::UnsupportedVersion,
            format!("v is {version}; this collector speaks {VERSION}"),
        )
        .at("v")
        .limit(VERSION, Got::Number(i64::try_from(version).unwrap_or(i64::MAX))));
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
    Ok(Batch {
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
            .limit(1, Got::Number(0)));
    }
    if events.count > limits.events_per_batch {
        let detail = format!("the batch has {} events; at most {} are allowed", events.count, limits.events_per_batch);
        return Err(Problem::new(ProblemCode::TooManyEvents, detail)
            .at("events")
            .limit(limits.events_per_batch, Got::Number(events.count.cast_signed())));
    }
    Ok(events.kept)
}

/// Every event gets a copy of the common properties, so together they may have no more bytes than an event.
fn check_common(common: &RawValue, limits: &Limits) -> Result<(), Violation> {
    let bytes = common.get().len() as u64;
    if bytes > limits.event_bytes {
        return Err(Violation::over(RejectReason::InvalidField, "common", limits.event_bytes, bytes));
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
        problem.got = Some(Got::text(text));
        problem
    })
}

fn context(
    app: Option<WireApp<'_>>,
    sdk: Option<WireSdk<'_>>,
    host: Option<WireHost<'_>>,
    device: Option<WireDevice<'_>>,
    network: Option<Text<'_>>,
    limits: &Limits,
) -> crate::codec::encode::Context {
    let (sdk, host, device) = (sdk.unwrap_or_default(), host.unwrap_or_default(), device.unwrap_or_default());
    let bytes = usize::try_from(limits.context_text_bytes).unwrap_or(usize::MAX);
    // What the SDK collects it cuts itself; a batch is not refused because another sender did not.
    let own = |text: Option<Text<'_>>| truncate(&text.unwrap_or_default(), bytes).to_owned();
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

/// Reads the body once more, slowly, to name the field or the place.
fn explain(body: &[u8], error: &serde_json::Error, whole: WholeBatch) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    let is_data = error.is_data();
    // The message quotes what came, which may be all of the body.
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
    // A name in it is the sender's, and may be all of the body, too.
    let path = truncate(&path, PATH_BYTES);
    Problem::new(ProblemCode::InvalidField, format!("{path}: {error}")).at(path)
}
