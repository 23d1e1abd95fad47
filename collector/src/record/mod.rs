//! Record of the spool: the stored events of one accepted batch, after validation, deduplication and clock correction.
//! Every sink is fed with it. PURE.
//!
//! This module holds the one declaration of the columns. The record's JSON, the flat JSON of [`crate::row`], every
//! store's schema, encoder and decoder, and the table in docs/columns.md derive from it. A new column is a line here
//! and the code that sets its value, a line for existing ClickHouse and Elasticsearch tables, and docs (docs/columns.md
//! says how).

mod columns;
#[cfg(test)]
mod docs_tests;
#[cfg(test)]
pub(crate) mod samples;
mod text;

use serde::{Deserialize, Serialize};

use columns::Field;
pub use columns::{
    Column, ColumnKind, ColumnScope, ColumnSource, NO_PROPERTIES, Object, OwnedValue, Value, write_known, write_members,
};
pub use text::Text;

/// Type of a field of this kind.
macro_rules! field {
    ($a:lifetime, Text) => { Text<$a> };
    ($a:lifetime, Keyword) => { Text<$a> };
    ($a:lifetime, Uuid) => { Text<$a> };
    ($a:lifetime, Time) => { i64 };
    ($a:lifetime, NullableTime) => { Option<i64> };
    ($a:lifetime, Number) => { u64 };
    ($a:lifetime, NullableNumber) => { Option<u64> };
    ($a:lifetime, Flag) => { bool };
    ($a:lifetime, Object) => { Object<$a> };
}

macro_rules! columns {
    ($of:ident; $($doc:literal $name:ident: $kind:ident)*) => {
        &[$(Column {
            name: stringify!($name),
            member: concat!("\"", stringify!($name), "\":"),
            kind: ColumnKind::$kind,
            of: ColumnScope::$of,
            doc: $doc,
        }),*]
    };
}

/// Struct whose fields are columns. `= default` allows a record to lack the field.
macro_rules! group {
    ($(#[$outer:meta])* $group:ident of $of:ident { $(#[doc = $doc:literal] $name:ident: $kind:ident $(= $default:ident)?,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        pub struct $group<'a> {
            $(
                #[doc = $doc]
                #[serde(borrow $(, $default, skip_serializing_if = "Field::is_absent")?)]
                pub $name: field!('a, $kind),
            )*
        }
        values! { $group of $of { $($doc $name: $kind,)* } }
    };
}

macro_rules! values {
    ($group:ident of $of:ident { $($doc:literal $name:ident: $kind:ident,)* }) => {
        impl $group<'_> {
            /// Columns, in the order of [`Self::values`].
            pub const COLUMNS: &'static [Column] = columns!($of; $($doc $name: $kind)*);

            /// Returns the values of the columns.
            #[must_use]
            pub fn values(&self) -> [Value<'_>; $group::<'static>::COLUMNS.len()] {
                [$(self.$name.value()),*]
            }
        }
        impl $group<'static> {
            /// Takes every column from `source`, in their order.
            ///
            /// # Errors
            /// The first error of `source`.
            pub fn read<S: ColumnSource>(source: &mut S) -> Result<Self, S::Error> {
                let mut columns = Self::COLUMNS.iter();
                Ok(Self { $($name: next(&mut columns, source)?,)* })
            }
        }
    };
}

/// Reads the value of the next column.
fn next<T: Field, S: ColumnSource>(
    columns: &mut std::slice::Iter<'static, Column>,
    source: &mut S,
) -> Result<T, S::Error> {
    Ok(T::from_value(match columns.next() {
        Some(column) => source.next(column)?,
        None => OwnedValue::Absent,
    }))
}

/// Structs with the columns of a batch among their fields.
macro_rules! batch {
    ($(#[doc = $doc:literal] $name:ident: $kind:ident $(= $default:ident)?,)*) => {
        /// Stored events of one batch. Unknown texts are empty and left out of the JSON.
        ///
        /// The spool numbers every stored event over all apps: 1, 2, 3, .. A record has only the order of its events;
        /// the spool knows the position of the first.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub struct Record<'a> {
            $(
                #[doc = $doc]
                #[serde(borrow $(, $default, skip_serializing_if = "Field::is_absent")?)]
                pub $name: field!('a, $kind),
            )*
            /// App, SDK, host and device.
            #[serde(borrow, default)]
            pub context: Context<'a>,
            /// The events in the order of sending.
            #[serde(borrow)]
            pub events: Vec<Event<'a>>,
        }

        /// One stored event with everything known about it, flat.
        ///
        /// As JSON it has every column: an unknown text is `""`, an unknown number `null`, absent properties are `{}`.
        /// Times are milliseconds since the epoch.
        #[derive(Debug, Clone)]
        pub struct Row<'a> {
            $(#[doc = $doc] pub $name: field!('a, $kind),)*
            /// App, SDK, host and device.
            pub context: Context<'a>,
            /// The event itself.
            pub event: Event<'a>,
        }

        impl Record<'_> {
            /// Columns of a batch, in the order of [`Self::values`].
            pub const COLUMNS: &'static [Column] = columns!(Batch; $($doc $name: $kind)*);

            /// Returns the values of the columns of a batch.
            #[must_use]
            pub fn values(&self) -> [Value<'_>; Record::<'static>::COLUMNS.len()] {
                [$(self.$name.value()),*]
            }
        }

        impl<'a> Row<'a> {
            /// Creates the row of one event of a record.
            #[must_use]
            pub fn new(record: &Record<'a>, event: &Event<'a>) -> Self {
                Row { $($name: record.$name.clone(),)* context: record.context.clone(), event: event.clone() }
            }

            /// Converts the row to a record with this one event.
            #[must_use]
            pub fn into_record(self) -> Record<'a> {
                Record { $($name: self.$name,)* context: self.context, events: vec![self.event] }
            }

            /// Returns the values of the columns of the batch.
            pub(crate) fn batch_values(&self) -> [Value<'_>; Record::<'static>::COLUMNS.len()] {
                [$(self.$name.value()),*]
            }
        }

        impl Row<'static> {
            /// Takes every column from `source`, in the order of [`all`].
            ///
            /// # Errors
            /// The first error of `source`.
            pub fn read<S: ColumnSource>(source: &mut S) -> Result<Self, S::Error> {
                let event = Event::read(source)?;
                let mut columns = Record::COLUMNS.iter();
                Ok(Self { $($name: next(&mut columns, source)?,)* context: Context::read(source)?, event })
            }
        }
    };
}

/// Returns every column of a stored event, in the order in which they are written and read.
pub fn all() -> impl Iterator<Item = &'static Column> {
    Event::COLUMNS.iter().chain(Record::COLUMNS).chain(Context::COLUMNS)
}

/// Returns the bytes of a record's JSON that all its events share; `None` for a record of an older collector.
#[must_use]
pub fn shared_bytes(json: &str) -> Option<u64> {
    let digits = json.strip_prefix("{\"shared_bytes\":")?;
    digits.split(',').next()?.parse().ok()
}

/// Number of columns that the spool's transaction decides: the first ones of an event.
pub const DECIDED: usize = 3;

group! {
    /// One stored event.
    Event of Event {
        /// When it happened, after correction
        event_time: Time,
        /// Where `event_time` is from: `true` (the sender knew it), `device` (its clock), `corrected` (its clock, corrected), `arrival` (its clock was absurd)
        time_source: Keyword = default,
        /// Whether it may be a repetition that is no longer recognised: its batch is older than the memory for IDs
        unverified: Flag = default,
        /// Identity, given once on the device
        event_id: Uuid,
        /// The user known at that moment
        user_id: Text = default,
        /// What it is about
        theme: Keyword,
        /// Its name
        code: Keyword,
        /// Number within the install, from 1, without gaps; 0 where the client has none
        seq: Number,
        /// When it happened by the device's clock
        ts: Time,
        /// The same by the device's monotonic clock, milliseconds
        mono: NullableNumber = default,
        /// Which run of the monotonic clock
        boot: Text = default,
        /// The session
        session_id: Text = default,
        /// Number of the session within the install
        session_index: NullableNumber = default,
        /// Number of the event within the session
        session_event: NullableNumber = default,
        /// Path of the page
        page_path: Text = default,
        /// Title of the page
        page_title: Text = default,
        /// Where the page was reached from
        page_referrer: Text = default,
        /// When the page was entered by the device's clock
        page_enter_ts: NullableTime = default,
        /// Properties, as they were sent
        props: Object = default,
    }
}

batch! {
    /// Key of the app
    app_key: Keyword,
    /// The batch it came in
    batch_id: Text,
    /// Who sent it
    install_id: Text,
    /// When the collector had it
    received_at: Time,
    /// Properties of the batch, as they were sent
    common: Object = default,
}

group! {
    /// App, SDK, host and device of a batch.
    Context of Context {
        /// Version of the mini-program or app
        app_version: Keyword = default,
        /// Name of the SDK package
        sdk_name: Keyword = default,
        /// Version of the SDK package
        sdk_version: Keyword = default,
        /// Platform: jd, weapp, web, android, ..
        platform: Keyword = default,
        /// Name of the hosting app
        host_app: Keyword = default,
        /// Version of the hosting app
        host_version: Keyword = default,
        /// Operating system
        os: Keyword = default,
        /// Version of the operating system
        os_version: Keyword = default,
        /// Maker of the device
        brand: Keyword = default,
        /// Model of the device
        model: Keyword = default,
        /// Screen, `WIDTHxHEIGHT`
        screen: Keyword = default,
        /// Language, BCP 47
        language: Keyword = default,
        /// Time zone, IANA name
        timezone: Keyword = default,
        /// Network type
        network: Keyword = default,
    }
}
