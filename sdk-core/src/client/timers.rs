//! Timers: measure durations and add them to events as the property `duration_ms`.

use subway_protocol::json::{ObjectWriter, Reader};

use super::members::parse_object;
use super::{Client, Input, concat};
use crate::store::Store;
use crate::{Id, Now, TrackError, limits};

/// Property that holds the measured duration.
const DURATION: &str = "duration_ms";

impl<S: Store> Client<S> {
    /// Starts a timer. A running timer of this name restarts.
    pub fn timer_start(&mut self, now: Now, name: &str) {
        self.timers.retain(|(other, _)| other != name);
        if self.timers.len() == limits::MAX_TIMERS {
            self.timers.remove(0);
        }
        self.timers.push((name.to_owned(), now.mono));
    }

    /// Stops a timer and records the event with the property `duration_ms`: milliseconds since the start by the host's
    /// monotonic clock. It replaces a property of that name.
    ///
    /// If no such timer runs, the event is recorded without a duration, because the event did happen and a made-up
    /// number would be worse than none. A diagnostic says so, once per name.
    ///
    /// # Errors
    /// As [`Client::track`].
    pub fn timer_end(&mut self, now: Now, name: &str, input: Input<'_>) -> Result<Id, TrackError> {
        let Some(at) = self.timers.iter().position(|(other, _)| other == name) else {
            let text = concat("no timer named ", name);
            self.diagnostic_once(concat(&text, " was running: its event is recorded without duration_ms"));
            return self.track(now, input);
        };
        let (_, start) = self.timers.remove(at);
        if input.check().is_err() {
            return self.track(now, input);
        }
        let props = with_duration(input.props, now.mono.saturating_sub(start));
        self.track(now, Input { props: props.as_deref().unwrap_or(input.props), ..input })
    }
}

/// Returns the properties with a duration; `None` if they are not an object.
fn with_duration(props: &str, millis: u64) -> Option<String> {
    let members = if props.is_empty() { Vec::new() } else { parse_object(&mut Reader::new(props)).ok()? };
    let mut out = String::with_capacity(props.len() + 32);
    let mut object = ObjectWriter::new(&mut out);
    for (name, value) in &members {
        if name != DURATION {
            object.raw(name, value);
        }
    }
    object.integer(DURATION, millis as i64);
    object.end();
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::with_duration;

    #[test]
    fn a_duration_is_added_or_replaces_an_existing_one() {
        for (props, expected) in [
            ("", r#"{"duration_ms":7}"#),
            (" { } ", r#"{"duration_ms":7}"#),
            (r#"{"a":[1, {"b":2}]}"#, r#"{"a":[1, {"b":2}],"duration_ms":7}"#),
            (r#"{"duration_ms":1,"a\"b":1}"#, r#"{"a\"b":1,"duration_ms":7}"#),
        ] {
            assert_eq!(with_duration(props, 7).as_deref(), Some(expected));
        }
        for props in ["[1]", "null", "{", "x"] {
            assert_eq!(with_duration(props, 7), None, "{props}");
        }
    }
}
