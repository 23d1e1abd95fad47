//! Reads a batch. The envelope must be right as a whole; each event is read for itself, so that one bad event never
//! costs its neighbours.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Problem, ProblemCode};
use super::text::Text;
use crate::limits::{Limits, MAX_SAFE_INTEGER};
use crate::outcome::{Got, RejectReason, Violation, truncate};
use crate::{Id, VERSION};

/// A batch whose envelope is right. Its events are read one by one with [`Event::decode`].
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The batch's identity.
    pub batch_id: Id,
    /// Who sends.
    pub install_id: Id,
    /// Device clock at sending, milliseconds since the epoch.
    pub sent_at: i64,
    /// Monotonic device clock at sending, milliseconds.
    pub sent_mono: Option<u64>,
    /// Who sends, in detail. Absent texts are empty.
    pub context: crate::codec::encode::Context,
    /// Common properties, a JSON object within the limits.
    pub common: Option<&'a RawValue>,
    /// The client's ledger as sent.
    pub ledger: Option<&'a RawValue>,
    /// The events, each still to be read; at least one.
    pub events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct WireBatch<'a> {
    v: Option<u64>,
    #[serde(borrow)]
    batch_id: Option<Text<'a>>,
    #[serde(borrow)]
    install_id: Option<Text<'a>>,
    sent_at: Option<i64>,
    sent_mono: Option<u64>,
    #[serde(borrow)]
    app: Option<WireApp<'a>>,
    #[serde(borrow)]
    sdk: Option<WireSdk<'a>>,
    #[serde(borrow)]
    host: Option<WireHost<'a>>,
    #[serde(borrow)]
    device: Option<WireDevice<'a>>,
    #[serde(borrow)]
    network: Option<Text<'a>>,
    #[serde(borrow)]
    common: Option<&'a RawValue>,
    #[serde(borrow)]
    ledger: Option<&'a RawValue>,
    #[serde(borrow)]
    events: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "a JSON object")]
struct WireApp<'a> {
    #[serde(borrow)]
    version: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "a JSON object")]
struct WireSdk<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "a JSON object")]
struct WireHost<'a> {
    #[serde(borrow)]
    platform: Option<Text<'a>>,
    #[serde(borrow)]
    app: Option<Text<'a>>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "a JSON object")]
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

/// Reads a batch from its decompressed body.
///
/// # Errors
/// The problem to refuse the whole request with: not JSON (the place named), a field of the envelope missing or wrong,
/// another version, no events, more events than `events_per_batch`.
pub fn decode<'a>(body: &'a [u8], limits: &Limits) -> Result<Batch<'a>, Problem> {
    // Derived readers would also take an array of the fields' values in their order, which is no batch.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::new(ProblemCode::MalformedJson, "the body is a JSON array; a batch is an object".into())
            .at("line 1, column 1"));
    }
    let wire: WireBatch<'a> = serde_json::from_slice(body).map_err(|error| explain(body, &error))?;
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
    let sent_at = required(wire.sent_at, "sent_at")?;
    if !(0..=crate::limits::MAX_TIME_MS).contains(&sent_at) {
        return Err(Problem::new(
            ProblemCode::InvalidField,
            "sent_at must be milliseconds since the epoch, year 9999 at most".into(),
        )
        .at("sent_at")
        .limit(crate::limits::MAX_TIME_MS as u64, Got::Number(sent_at)));
    }
    let events = required(wire.events, "events")?;
    if events.is_empty() {
        return Err(Problem::new(ProblemCode::NoEvents, "events is empty; a batch has at least one".into())
            .at("events")
            .limit(1, Got::Number(0)));
    }
    if events.len() as u64 > limits.events_per_batch {
        let detail = format!("the batch has {} events; at most {} are allowed", events.len(), limits.events_per_batch);
        return Err(Problem::new(ProblemCode::TooManyEvents, detail)
            .at("events")
            .limit(limits.events_per_batch, Got::Number(events.len() as i64)));
    }
    let common = non_null(wire.common);
    if let Some(common) = common {
        crate::json::check_object(common.get(), "common", limits.into())
            .map_err(|violation| Problem::from_violation(&violation))?;
    }
    let context = context(wire.app, wire.sdk, wire.host, wire.device, wire.network, limits);
    let ledger = non_null(wire.ledger);
    Ok(Batch { batch_id, install_id, sent_at, sent_mono: wire.sent_mono, context, common, ledger, events })
}

fn non_null(value: Option<&RawValue>) -> Option<&RawValue> {
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
    let bytes = usize::try_from(limits.text_bytes).unwrap_or(usize::MAX);
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
fn explain(body: &[u8], error: &serde_json::Error) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    if !error.is_data() {
        return Problem::new(ProblemCode::MalformedJson, format!("the body is not JSON: {error}")).at(&place);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let path = match serde_path_to_error::deserialize::<_, WireBatch<'_>>(&mut deserializer) {
        Err(error) if error.path().iter().len() > 0 => error.path().to_string(),
        _ => String::new(),
    };
    if path.is_empty() || path == "." {
        return Problem::new(ProblemCode::MalformedJson, format!("the body is not a batch: {error}")).at(&place);
    }
    Problem::new(ProblemCode::InvalidField, format!("{path}: {error}")).at(&path)
}

/// One event, read from its JSON text. Texts are borrowed where possible.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Its identity.
    pub id: Id,
    /// Its number within the install.
    pub seq: u64,
    /// Its theme as sent; not yet checked.
    pub theme: Text<'a>,
    /// Its code as sent; not yet checked.
    pub code: Text<'a>,
    /// Device clock, milliseconds since the epoch; not yet checked.
    pub ts: i64,
    /// Monotonic device clock, milliseconds.
    pub mono: Option<u64>,
    /// Which run of the monotonic clock.
    pub boot: Text<'a>,
    /// The true time, if the sender knows it; not yet checked.
    pub true_ts: Option<i64>,
    /// The user, empty if none.
    pub user_id: Text<'a>,
    /// The session.
    pub session: Option<Session<'a>>,
    /// The page.
    pub page: Option<Page<'a>>,
    /// The properties as sent; not yet checked.
    pub props: Option<&'a RawValue>,
}

/// Where in a session an event stands.
#[derive(Clone, Debug, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct Session<'a> {
    /// The session's identity, any text.
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    /// The session's number within the install.
    pub index: Option<u64>,
    /// The event's number within the session.
    pub event: Option<u64>,
}

/// A page.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct Page<'a> {
    /// Path without query.
    #[serde(borrow)]
    pub path: Option<Text<'a>>,
    /// Title.
    #[serde(borrow)]
    pub title: Option<Text<'a>>,
    /// Where it was reached from.
    #[serde(borrow)]
    pub referrer: Option<Text<'a>>,
    /// When it was entered, device clock, milliseconds since the epoch.
    pub enter_ts: Option<i64>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct WireEvent<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    seq: Option<u64>,
    #[serde(borrow)]
    theme: Option<Text<'a>>,
    #[serde(borrow)]
    code: Option<Text<'a>>,
    ts: Option<i64>,
    mono: Option<u64>,
    #[serde(borrow)]
    boot: Option<Text<'a>>,
    true_ts: Option<i64>,
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    #[serde(borrow)]
    session: Option<Session<'a>>,
    #[serde(borrow)]
    page: Option<Page<'a>>,
    #[serde(borrow)]
    props: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// Reads one event: its fields' presence and types. Ranges and limits are the pipeline's to check.
    ///
    /// # Errors
    /// `malformed`, `missing_field` or `invalid_field`, with the ID if one could be read.
    pub fn decode(raw: &'a RawValue) -> Result<Self, (Option<Id>, Violation)> {
        if raw.get().starts_with('[') {
            return Err((None, Violation::new(RejectReason::Malformed, "", Some(Got::text("a JSON array")))));
        }
        let wire: WireEvent<'a> = serde_json::from_str(raw.get()).map_err(|error| explain_event(raw.get(), &error))?;
        let known = wire.id.as_ref().and_then(|text| Id::parse(text));
        let fail = |violation| (known, violation);
        let missing = |field| fail(Violation::new(RejectReason::MissingField, field, None));
        let id = wire.id.ok_or_else(|| missing("id"))?;
        let id = known.ok_or_else(|| fail(Violation::new(RejectReason::InvalidField, "id", Some(Got::text(&id)))))?;
        let seq = wire.seq.ok_or_else(|| missing("seq"))?;
        if seq > MAX_SAFE_INTEGER {
            return Err(fail(Violation::over(RejectReason::InvalidField, "seq", MAX_SAFE_INTEGER, seq)));
        }
        Ok(Self {
            id,
            seq,
            theme: wire.theme.ok_or_else(|| missing("theme"))?,
            code: wire.code.ok_or_else(|| missing("code"))?,
            ts: wire.ts.ok_or_else(|| missing("ts"))?,
            mono: wire.mono,
            boot: wire.boot.unwrap_or_default(),
            true_ts: wire.true_ts,
            user_id: wire.user_id.unwrap_or_default(),
            session: wire.session,
            page: wire.page,
            props: non_null(wire.props),
        })
    }
}

/// Reads the event once more, slowly, to name the field.
fn explain_event(text: &str, error: &serde_json::Error) -> (Option<Id>, Violation) {
    #[derive(Deserialize)]
    struct OnlyId<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let id = serde_json::from_str::<OnlyId<'_>>(text)
        .ok()
        .and_then(|only| only.id)
        .and_then(|raw| Id::parse(raw.get().trim_matches('"')));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let path = match serde_path_to_error::deserialize::<_, WireEvent<'_>>(&mut deserializer) {
        Err(error) if error.path().iter().len() > 0 => error.path().to_string(),
        _ => String::new(),
    };
    let message = error.to_string();
    let got = Some(Got::text(message.split(" at line ").next().unwrap_or_default()));
    if path.is_empty() || path == "." {
        (id, Violation::new(RejectReason::Malformed, "", got))
    } else {
        (id, Violation::new(RejectReason::InvalidField, &path, got))
    }
}
