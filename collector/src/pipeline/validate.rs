//! Rules for one event, independent of other events and of the channel.

use subway_protocol::json::check_object;
use subway_protocol::limits::MAX_SAFE_INTEGER;
use subway_protocol::theme::is_code;
use subway_protocol::{Actual, Limits, RejectReason, Violation};

use super::event::Event;

/// Checks everything but the time.
pub(super) fn check(event: &Event<'_>, limits: &Limits) -> Result<(), Violation> {
    if !is_code(&event.code) {
        return Err(Violation::new(RejectReason::InvalidCode, "code", Some(Actual::text(&event.code))));
    }
    text("boot", &event.boot, limits)?;
    text("user_id", &event.user_id, limits)?;
    text("session.id", &event.session_id, limits)?;
    number("session.index", event.session_index)?;
    number("session.event", event.session_event)?;
    text("page.path", &event.page.path, limits)?;
    text("page.title", &event.page.title, limits)?;
    text("page.referrer", &event.page.referrer, limits)?;
    if let Some(props) = event.props.get() {
        check_object(props.get(), "props", limits.into())?;
    }
    Ok(())
}

/// Checks a number that counts from 1.
fn number(field: &str, value: Option<u64>) -> Result<(), Violation> {
    match value {
        Some(0) => Err(Violation::limit_exceeded(RejectReason::InvalidField, field, 1, 0)),
        Some(value) if value > MAX_SAFE_INTEGER => {
            Err(Violation::limit_exceeded(RejectReason::InvalidField, field, MAX_SAFE_INTEGER, value))
        }
        _ => Ok(()),
    }
}

fn text(field: &str, value: &str, limits: &Limits) -> Result<(), Violation> {
    let bytes = value.len() as u64;
    if bytes > limits.text_bytes {
        return Err(Violation::limit_exceeded(RejectReason::TextTooLong, field, limits.text_bytes, bytes));
    }
    Ok(())
}
