//! The rules that one event must keep, whatever the others are.

use serde_json::value::RawValue;
use subway_protocol::codec::server::Event;
use subway_protocol::json::check_object;
use subway_protocol::limits::{MAX_SAFE_INTEGER, MAX_TIME_MS};
use subway_protocol::theme::is_code;
use subway_protocol::{Got, Id, Limits, RejectReason, Theme, Violation};

/// Reads one event and checks it. An error carries the event's ID if it could be read.
pub(super) fn event<'a>(raw: &'a RawValue, limits: &Limits) -> Result<(Event<'a>, Theme), (Option<Id>, Violation)> {
    let bytes = raw.get().len() as u64;
    if bytes > limits.event_bytes {
        let id = Event::decode(raw).map_or_else(|(id, _)| id, |event| Some(event.id));
        return Err((id, Violation::over(RejectReason::EventTooLarge, "", limits.event_bytes, bytes)));
    }
    let event = Event::decode(raw)?;
    match check(&event, limits) {
        Ok(theme) => Ok((event, theme)),
        Err(violation) => Err((Some(event.id), violation)),
    }
}

fn check(event: &Event<'_>, limits: &Limits) -> Result<Theme, Violation> {
    let theme = Theme::parse(&event.theme)
        .ok_or_else(|| Violation::new(RejectReason::UnknownTheme, "theme", Some(Got::text(&event.theme))))?;
    if !is_code(&event.code) {
        return Err(Violation::new(RejectReason::InvalidCode, "code", Some(Got::text(&event.code))));
    }
    time("ts", Some(event.ts))?;
    time("true_ts", event.true_ts)?;
    integer("mono", event.mono)?;
    text("boot", &event.boot, limits)?;
    text("user_id", &event.user_id, limits)?;
    if let Some(session) = &event.session {
        text("session.id", session.id.as_deref().unwrap_or_default(), limits)?;
        integer("session.index", session.index)?;
        integer("session.event", session.event)?;
    }
    if let Some(page) = &event.page {
        for (field, value) in
            [("page.path", &page.path), ("page.title", &page.title), ("page.referrer", &page.referrer)]
        {
            if let Some(value) = value {
                text(field, value, limits)?;
            }
        }
        time("page.enter_ts", page.enter_ts)?;
    }
    if let Some(props) = event.props {
        check_object(props.get(), "props", limits.into())?;
    }
    Ok(theme)
}

fn time(field: &str, value: Option<i64>) -> Result<(), Violation> {
    match value {
        Some(millis) if !(0..=MAX_TIME_MS).contains(&millis) => Err(Violation {
            reason: RejectReason::TimeOutOfRange,
            field: field.to_owned(),
            limit: Some(MAX_TIME_MS.unsigned_abs()),
            got: Some(Got::Number(millis)),
        }),
        _ => Ok(()),
    }
}

fn integer(field: &str, value: Option<u64>) -> Result<(), Violation> {
    match value {
        Some(value) if value > MAX_SAFE_INTEGER => {
            Err(Violation::over(RejectReason::InvalidField, field, MAX_SAFE_INTEGER, value))
        }
        _ => Ok(()),
    }
}

fn text(field: &str, value: &str, limits: &Limits) -> Result<(), Violation> {
    let bytes = value.len() as u64;
    if bytes > limits.text_bytes {
        return Err(Violation::over(RejectReason::TextTooLong, field, limits.text_bytes, bytes));
    }
    Ok(())
}
