//! What the spool keeps of one accepted batch, and what every sink is fed with: the stored events with everything known
//! about them, after validation, deduplication and clock correction. PURE.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A text, borrowed from the spool's row unless it contains escapes.
pub type Text<'a> = Cow<'a, str>;

/// The stored events of one batch. Texts that are unknown are empty and left out of the JSON.
///
/// The spool gives every stored event a position: 1, 2, 3, .. over all apps. A record knows only its events' order; the
/// spool says the position of the first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record<'a> {
    /// Key of the app.
    #[serde(borrow)]
    pub app_key: Text<'a>,
    /// The batch they came in.
    #[serde(borrow)]
    pub batch_id: Text<'a>,
    /// Who sent them.
    #[serde(borrow)]
    pub install_id: Text<'a>,
    /// When the batch arrived, milliseconds since the epoch.
    pub received_at: i64,
    /// App, SDK, host and device.
    #[serde(borrow, default)]
    pub context: Context<'a>,
    /// Common properties, a JSON object.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub common: Option<&'a RawValue>,
    /// The events in the order of sending.
    #[serde(borrow)]
    pub events: Vec<Event<'a>>,
}

macro_rules! texts {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $field:ident),* $(,)? }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name<'a> {
            $($(#[$doc])* #[serde(borrow, skip_serializing_if = "str::is_empty")] pub $field: Text<'a>,)*
        }
        impl<'a> $name<'a> {
            /// Every field's name with its value, in the order of declaration.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
                [$((stringify!($field), self.$field.as_ref())),*].into_iter()
            }
        }
    };
}

texts! {
    /// App, SDK, host and device of a batch. The field names are the column names of every store.
    Context {
        /// Version of the mini-program or app.
        app_version,
        /// Name of the SDK package.
        sdk_name,
        /// Version of the SDK package.
        sdk_version,
        /// Platform: jd, weapp, web, android, ..
        platform,
        /// Name of the hosting app.
        host_app,
        /// Version of the hosting app.
        host_version,
        /// Operating system.
        os,
        /// Version of the operating system.
        os_version,
        /// Maker of the device.
        brand,
        /// Model of the device.
        model,
        /// Screen, `WIDTHxHEIGHT`.
        screen,
        /// Language, BCP 47.
        language,
        /// Time zone, IANA name.
        timezone,
        /// Network type.
        network,
    }
}

/// One stored event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event<'a> {
    /// Its identity, 36 characters, lower case.
    #[serde(borrow)]
    pub event_id: Text<'a>,
    /// Its number within the install.
    pub seq: u64,
    /// Its theme.
    #[serde(borrow)]
    pub theme: Text<'a>,
    /// Its code.
    #[serde(borrow)]
    pub code: Text<'a>,
    /// When it happened, after correction, milliseconds since the epoch.
    pub event_time: i64,
    /// When it happened by the device's clock, milliseconds since the epoch.
    pub ts: i64,
    /// When it happened by the device's monotonic clock, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mono: Option<u64>,
    /// Which run of the monotonic clock.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub boot: Text<'a>,
    /// The user, empty if none.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub user_id: Text<'a>,
    /// The session, empty if none.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub session_id: Text<'a>,
    /// The session's number within the install.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session_index: Option<u64>,
    /// The event's number within the session.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session_event: Option<u64>,
    /// The page's path.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub page_path: Text<'a>,
    /// The page's title.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub page_title: Text<'a>,
    /// Where the page was reached from.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub page_referrer: Text<'a>,
    /// When the page was entered by the device's clock, milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub page_enter_ts: Option<i64>,
    /// Properties of the event, a JSON object.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub props: Option<&'a RawValue>,
}
