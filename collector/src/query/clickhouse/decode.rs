//! Rows from ClickHouse's format RowBinary, in the order of [`columns`].

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::query::Listed;
use crate::record::{Context, Event, Text};
use crate::row::Row;
use crate::sinks::clickhouse::{Kind, columns, uuid_text};

/// The properties as written where there are none.
const NO_PROPERTIES: &str = "{}";

/// An event of which nothing is known yet.
const EMPTY: Event<'static> = Event {
    event_id: Cow::Borrowed(""),
    seq: 0,
    theme: Cow::Borrowed(""),
    code: Cow::Borrowed(""),
    event_time: 0,
    ts: 0,
    mono: None,
    boot: Cow::Borrowed(""),
    user_id: Cow::Borrowed(""),
    session_id: Cow::Borrowed(""),
    session_index: None,
    session_event: None,
    page_path: Cow::Borrowed(""),
    page_title: Cow::Borrowed(""),
    page_referrer: Cow::Borrowed(""),
    page_enter_ts: None,
    props: None,
};

/// One value of a row.
enum Value {
    Text(String),
    Number(Option<u64>),
}

impl Value {
    fn text(self) -> Text<'static> {
        match self {
            Value::Text(text) => Cow::Owned(text),
            Value::Number(number) => Cow::Owned(number.map(|number| number.to_string()).unwrap_or_default()),
        }
    }

    fn maybe(self) -> Option<u64> {
        match self {
            Value::Text(_) => None,
            Value::Number(number) => number,
        }
    }

    fn number(self) -> u64 {
        self.maybe().unwrap_or_default()
    }

    fn time(self) -> i64 {
        self.number().cast_signed()
    }

    fn object(self) -> Result<Option<Cow<'static, RawValue>>, String> {
        match self {
            Value::Text(text) if text == NO_PROPERTIES => Ok(None),
            Value::Text(text) => {
                RawValue::from_string(text).map(|raw| Some(Cow::Owned(raw))).map_err(|error| error.to_string())
            }
            Value::Number(_) => Ok(None),
        }
    }
}

/// What is left of the answer.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take(&mut self, length: usize) -> Result<&[u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("it ends in the middle of a row")?;
        self.0 = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u64, String> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }

    fn text(&mut self) -> Result<String, String> {
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.take(1)?[0];
            length |= usize::from(byte & 0x7f).checked_shl(shift).ok_or("a length is too large")?;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a text is not UTF-8".into())
    }

    fn value(&mut self, kind: Kind) -> Result<Value, String> {
        Ok(match kind {
            Kind::Text | Kind::Word => Value::Text(self.text()?),
            Kind::Uuid => {
                let (high, low) = (self.word()?, self.word()?);
                Value::Text(uuid_text(u128::from(high) << 64 | u128::from(low)))
            }
            Kind::Time | Kind::Number => Value::Number(Some(self.word()?)),
            Kind::MaybeTime | Kind::MaybeNumber => match self.take(1)?[0] {
                0 => Value::Number(Some(self.word()?)),
                _ => Value::Number(None),
            },
        })
    }

    fn row(&mut self) -> Result<Listed, String> {
        let mut position = 0;
        let mut context = Context::default();
        let mut row = Row {
            app_key: Cow::Borrowed(""),
            batch_id: Cow::Borrowed(""),
            install_id: Cow::Borrowed(""),
            received_at: 0,
            context: Context::default(),
            common: None,
            event: EMPTY,
            props: None,
        };
        for (name, kind) in columns() {
            let value = self.value(kind)?;
            match name {
                "position" => position = value.number(),
                "app_key" => row.app_key = value.text(),
                "install_id" => row.install_id = value.text(),
                "batch_id" => row.batch_id = value.text(),
                "received_at" => row.received_at = value.time(),
                "common" => row.common = value.object()?,
                "props" => row.props = value.object()?,
                name => match context_field(&mut context, name) {
                    Some(field) => *field = value.text(),
                    None => set(&mut row.event, name, value),
                },
            }
        }
        row.context = context;
        Ok(Listed { position, row })
    }
}

fn context_field<'a>(context: &'a mut Context<'static>, name: &str) -> Option<&'a mut Text<'static>> {
    Some(match name {
        "app_version" => &mut context.app_version,
        "sdk_name" => &mut context.sdk_name,
        "sdk_version" => &mut context.sdk_version,
        "platform" => &mut context.platform,
        "host_app" => &mut context.host_app,
        "host_version" => &mut context.host_version,
        "os" => &mut context.os,
        "os_version" => &mut context.os_version,
        "brand" => &mut context.brand,
        "model" => &mut context.model,
        "screen" => &mut context.screen,
        "language" => &mut context.language,
        "timezone" => &mut context.timezone,
        "network" => &mut context.network,
        _ => return None,
    })
}

fn set(event: &mut Event<'static>, name: &str, value: Value) {
    match name {
        "event_id" => event.event_id = value.text(),
        "event_time" => event.event_time = value.time(),
        "seq" => event.seq = value.number(),
        "theme" => event.theme = value.text(),
        "code" => event.code = value.text(),
        "user_id" => event.user_id = value.text(),
        "ts" => event.ts = value.time(),
        "mono" => event.mono = value.maybe(),
        "boot" => event.boot = value.text(),
        "session_id" => event.session_id = value.text(),
        "session_index" => event.session_index = value.maybe(),
        "session_event" => event.session_event = value.maybe(),
        "page_path" => event.page_path = value.text(),
        "page_title" => event.page_title = value.text(),
        "page_referrer" => event.page_referrer = value.text(),
        "page_enter_ts" => event.page_enter_ts = value.maybe().map(u64::cast_signed),
        _ => {}
    }
}

/// The rows of an answer.
///
/// # Errors
/// Where it is not what was asked for.
pub(super) fn rows(answer: &[u8]) -> Result<Vec<Listed>, String> {
    let (mut input, mut rows) = (Input(answer), Vec::new());
    while !input.0.is_empty() {
        rows.push(input.row()?);
    }
    Ok(rows)
}
