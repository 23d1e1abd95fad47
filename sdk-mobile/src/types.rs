//! Types of the API: plain records, the same in every language.

use std::collections::HashMap;
use std::time::Duration;

use subway_sdk_core as core;

/// Configuration for opening the SDK. Create it with [`Config::new`] and change what differs.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Config {
    /// URL of the collector, such as `https://collect.example`; `/v1/events` is appended.
    pub endpoint: String,
    /// The app's public key.
    pub key: String,
    /// Secret of the app, if the collector requires signed requests.
    pub secret: Option<String>,
    /// Directory for the SDK alone, created if necessary. `None` keeps events in memory; they are lost when the process
    /// ends.
    pub data_dir: Option<String>,
    /// Whether `http://` is accepted for hosts other than this machine. Events would be readable on the way.
    pub allow_http: bool,
    /// Version of the app.
    pub app_version: String,
    /// App that hosts the SDK.
    pub host: HostInfo,
    /// Device information.
    pub device: DeviceInfo,
    /// `wifi`, `2g` .. `5g`, `none`, `unknown`, or empty.
    pub network: String,
    /// Limits and times.
    pub settings: Settings,
}

impl Config {
    /// Creates the default configuration for this collector and app key.
    #[must_use]
    pub fn new(endpoint: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            key: key.into(),
            secret: None,
            data_dir: None,
            allow_http: false,
            app_version: String::new(),
            host: HostInfo { platform: "rust".into(), ..HostInfo::default() },
            device: DeviceInfo::default(),
            network: String::new(),
            settings: Settings::default(),
        }
    }

    /// Returns the context of every event, in the core's form.
    pub(crate) fn context(&self) -> core::Context {
        let mut context = core::Context {
            app_version: self.app_version.clone(),
            sdk_name: env!("CARGO_PKG_NAME").to_owned(),
            sdk_version: env!("CARGO_PKG_VERSION").to_owned(),
            network: self.network.clone(),
            ..core::Context::default()
        };
        self.host.fill(&mut context);
        self.device.fill(&mut context);
        context
    }
}

/// Creates a configuration; [`Config::new`] for other languages.
#[must_use]
#[uniffi::export]
pub fn default_config(endpoint: String, key: String) -> Config {
    Config::new(endpoint, key)
}

/// App that hosts the SDK.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct HostInfo {
    /// `android`, `ios`, `python`, `rust`, ..
    #[uniffi(default = "")]
    pub platform: String,
    /// Name of the app.
    #[uniffi(default = "")]
    pub app: String,
    /// Version of the app.
    #[uniffi(default = "")]
    pub version: String,
}

impl HostInfo {
    pub(crate) fn fill(&self, context: &mut core::Context) {
        context.platform.clone_from(&self.platform);
        context.host_app.clone_from(&self.app);
        context.host_version.clone_from(&self.version);
    }
}

/// Device information. Empty texts are unknown and not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct DeviceInfo {
    /// Operating system.
    #[uniffi(default = "")]
    pub os: String,
    /// Version of the operating system.
    #[uniffi(default = "")]
    pub os_version: String,
    /// Manufacturer.
    #[uniffi(default = "")]
    pub brand: String,
    /// Model.
    #[uniffi(default = "")]
    pub model: String,
    /// Screen as `WIDTHxHEIGHT` in logical pixels.
    #[uniffi(default = "")]
    pub screen: String,
    /// Language as a BCP 47 tag.
    #[uniffi(default = "")]
    pub language: String,
    /// Time zone as an IANA name.
    #[uniffi(default = "")]
    pub timezone: String,
}

impl DeviceInfo {
    pub(crate) fn fill(&self, context: &mut core::Context) {
        context.os.clone_from(&self.os);
        context.os_version.clone_from(&self.os_version);
        context.brand.clone_from(&self.brand);
        context.model.clone_from(&self.model);
        context.screen.clone_from(&self.screen);
        context.language.clone_from(&self.language);
        context.timezone.clone_from(&self.timezone);
    }
}

/// Limits and times; see [`core::Config`] for their reasons.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Settings {
    /// Whether nothing is kept or sent until consent is granted.
    pub consent_required: bool,
    /// Most events in the queue.
    pub queue_rows: u64,
    /// Most bytes in the queue.
    pub queue_bytes: u64,
    /// Most events in a batch.
    pub batch_events: u64,
    /// Number of queued events that are sent without waiting for `flush_interval`.
    pub flush_events: u64,
    /// Longest time that a queued event waits before it is sent.
    pub flush_interval: Duration,
    /// Time in the background after which a new session starts.
    pub session_background: Duration,
    /// Time without an event after which the session ends.
    pub session_idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let core = core::Config::default();
        Self {
            consent_required: core.consent_required,
            queue_rows: core.max_queued_events as u64,
            queue_bytes: core.max_queued_bytes as u64,
            batch_events: core.max_batch_events as u64,
            flush_events: core.flush_events as u64,
            flush_interval: Duration::from_millis(core.flush_interval_ms),
            session_background: Duration::from_millis(core.session_background_ms),
            session_idle: Duration::from_millis(core.session_idle_ms),
        }
    }
}

impl Settings {
    pub(crate) fn core(&self) -> core::Config {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX / 2);
        core::Config {
            consent_required: self.consent_required,
            max_queued_events: size(self.queue_rows),
            max_queued_bytes: size(self.queue_bytes),
            max_batch_events: size(self.batch_events),
            flush_events: size(self.flush_events),
            flush_interval_ms: millis(self.flush_interval),
            session_background_ms: millis(self.session_background),
            session_idle_ms: millis(self.session_idle),
            ..core::Config::default()
        }
    }
}

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Theme {
    /// A page was shown.
    View,
    /// Something was tapped.
    Click,
    /// Something became visible.
    Exposure,
    /// A step of an order.
    Order,
    /// The app started, was shown, was hidden.
    Lifecycle,
    /// A page was shared.
    Share,
    /// Something failed.
    Error,
    /// Duration of an operation.
    Performance,
    /// A request to a server.
    Network,
    /// An attribute of the user.
    Profile,
    /// Anything else that the developer records.
    Custom,
}

impl From<Theme> for core::Theme {
    fn from(theme: Theme) -> Self {
        match theme {
            Theme::View => core::Theme::View,
            Theme::Click => core::Theme::Click,
            Theme::Exposure => core::Theme::Exposure,
            Theme::Order => core::Theme::Order,
            Theme::Lifecycle => core::Theme::Lifecycle,
            Theme::Share => core::Theme::Share,
            Theme::Error => core::Theme::Error,
            Theme::Performance => core::Theme::Performance,
            Theme::Network => core::Theme::Network,
            Theme::Profile => core::Theme::Profile,
            Theme::Custom => core::Theme::Custom,
        }
    }
}

/// The user's decision about being measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Consent {
    /// Not asked yet: a few events wait in memory, nothing is stored or sent.
    Unknown,
    /// Events are kept and sent.
    Granted,
    /// Events are dropped; stored data has been wiped.
    Denied,
}

impl From<Consent> for core::Consent {
    fn from(consent: Consent) -> Self {
        match consent {
            Consent::Unknown => core::Consent::Unknown,
            Consent::Granted => core::Consent::Granted,
            Consent::Denied => core::Consent::Denied,
        }
    }
}

/// A page of the app.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct Page {
    /// Path without query.
    #[uniffi(default = "")]
    pub path: String,
    /// Title; empty if unknown.
    #[uniffi(default = "")]
    pub title: String,
    /// Path or address it was reached from; empty if unknown.
    #[uniffi(default = "")]
    pub referrer: String,
    /// Device clock when the page was entered, milliseconds since the epoch.
    #[uniffi(default = None)]
    pub enter_ts: Option<i64>,
}

impl From<Page> for core::Page {
    fn from(page: Page) -> Self {
        Self { path: page.path, title: page.title, referrer: page.referrer, enter_ts: page.enter_ts }
    }
}

/// One event as given by the developer.
#[derive(Clone, Debug, uniffi::Record)]
pub struct TrackEvent {
    /// Kind of event.
    pub theme: Theme,
    /// Event name: 1 to 128 bytes without control characters. A diagnostic, once per name, warns of names other than
    /// `[A-Za-z_][A-Za-z0-9_.:-]*`.
    pub code: String,
    /// Properties as the text of a JSON object; empty for none.
    #[uniffi(default = "")]
    pub props: String,
    /// Page it happened on; `None` for the current one.
    #[uniffi(default = None)]
    pub page: Option<Page>,
    /// True time, milliseconds since the epoch, if the caller knows better than the device's clock.
    #[uniffi(default = None)]
    pub true_ts: Option<i64>,
}

impl TrackEvent {
    /// Creates an event without properties on the current page.
    #[must_use]
    pub fn new(theme: Theme, code: impl Into<String>) -> Self {
        Self { theme, code: code.into(), props: String::new(), page: None, true_ts: None }
    }

    /// Sets the properties; `value` must be an object.
    #[must_use]
    pub fn with_props(self, value: &serde_json::Value) -> Self {
        Self { props: value.to_string(), ..self }
    }

    /// Sets the page.
    #[must_use]
    pub fn with_page(self, page: Page) -> Self {
        Self { page: Some(page), ..self }
    }

    /// Sets the true time, milliseconds since the epoch.
    #[must_use]
    pub fn with_true_ts(self, millis: i64) -> Self {
        Self { true_ts: Some(millis), ..self }
    }
}

/// Counts of events by outcome since the install ID was generated: generated = acked + queued + all dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, uniffi::Record)]
pub struct Ledger {
    /// Events given to the SDK.
    pub generated: u64,
    /// Events that the collector has.
    pub acked: u64,
    /// Events on disk or on the way there.
    pub queued: u64,
    /// Dropped events by reason; reasons without events are absent.
    pub dropped: HashMap<String, u64>,
}

impl Ledger {
    /// Returns the number of dropped events.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Returns whether generated = acked + queued + dropped.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.generated == self.acked + self.queued + self.dropped_total()
    }
}

impl From<&core::Ledger> for Ledger {
    fn from(ledger: &core::Ledger) -> Self {
        let counts = core::DropReason::ALL.map(|reason| (reason.as_str().to_owned(), ledger.dropped(reason)));
        Self {
            generated: ledger.generated,
            acked: ledger.acked,
            queued: ledger.queued,
            dropped: counts.into_iter().filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// Result of the last upload, to find out why nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct LastUpload {
    /// HTTP status of the response; `None` if there was none.
    pub status: Option<u16>,
    /// Time of the result, milliseconds since the epoch by the device's clock.
    pub at: i64,
}
