//! Settings that apply until they change: user, common properties, context.

use subway_protocol::json::{Reader, check_object};
use subway_protocol::limits::EVENT_BYTES;
use subway_protocol::{Limits, RejectReason, Violation};

use super::Client;
use super::members::{parse_object, write_object};
use crate::store::Store;
use crate::{Now, TrackError, limits};

impl<S: Store> Client<S> {
    /// Sets the user of later events.
    ///
    /// # Errors
    /// If the name is empty or longer than the wire allows.
    pub fn identify(&mut self, now: Now, user_id: &str) -> Result<(), TrackError> {
        check_user(user_id).map_err(TrackError::Invalid)?;
        user_id.clone_into(&mut self.user);
        self.schedule_commit_host_time(now);
        Ok(())
    }

    /// Clears the user; the install stays the same.
    pub fn logout(&mut self, now: Now) {
        self.user.clear();
        self.schedule_commit_host_time(now);
    }

    /// Adds common properties, given as a JSON object, to every batch from the next event on. An existing name gets the
    /// new value.
    ///
    /// # Errors
    /// If all common properties together break a rule of [`check_common`]; then nothing is changed.
    pub fn register(&mut self, now: Now, props: &str) -> Result<(), TrackError> {
        check_common(props).map_err(TrackError::Invalid)?;
        let fail = |_| TrackError::Invalid(Violation::new(RejectReason::InvalidField, "common", None));
        let mut common = self.common.clone();
        for (name, value) in parse_object(&mut Reader::new(props)).map_err(fail)? {
            match common.iter_mut().find(|(other, _)| *other == name) {
                Some(slot) => slot.1 = value,
                None => common.push((name, value)),
            }
        }
        let mut whole = String::new();
        write_object(&mut whole, &common);
        check_common(&whole).map_err(TrackError::Invalid)?;
        self.set_common(now, common);
        Ok(())
    }

    /// Removes one common property.
    pub fn unregister(&mut self, now: Now, name: &str) {
        let mut common = self.common.clone();
        common.retain(|(other, _)| other != name);
        self.set_common(now, common);
    }

    /// Removes all common properties.
    pub fn clear_registered(&mut self, now: Now) {
        self.set_common(now, Vec::new());
    }

    fn set_common(&mut self, now: Now, common: Vec<(String, String)>) {
        self.common = common;
        self.current_context = None;
        self.schedule_commit_host_time(now);
    }

    /// Sets app, host and device for later events, as encoded by [`crate::Context::encode`].
    pub fn set_context(&mut self, context: &str) {
        if context != self.context {
            context.clone_into(&mut self.context);
            self.current_context = None;
        }
    }

    fn schedule_commit_host_time(&mut self, now: Now) {
        let now = self.clock.read(now);
        self.schedule_commit(now);
    }
}

/// Checks common properties, the text of a JSON object. [`Client::register`] calls it.
///
/// # Errors
/// If the text is not a JSON object within the limits of properties, or larger than one event. Every event of a batch
/// gets a copy of them, so they must not exceed the size of an event.
pub fn check_common(props: &str) -> Result<(), Violation> {
    let bytes = props.len() as u64;
    if bytes > EVENT_BYTES {
        return Err(Violation::limit_exceeded(RejectReason::InvalidField, "common", EVENT_BYTES, bytes));
    }
    check_object(props, "common", (&Limits::default()).into())
}

/// Checks a user ID. [`Client::identify`] calls it.
///
/// # Errors
/// If it is empty or longer than the wire allows.
pub fn check_user(user_id: &str) -> Result<(), Violation> {
    if user_id.is_empty() {
        return Err(Violation::new(RejectReason::MissingField, "user_id", None));
    }
    if user_id.len() > limits::TEXT_BYTES {
        let (limit, got) = (limits::TEXT_BYTES as u64, user_id.len() as u64);
        return Err(Violation::limit_exceeded(RejectReason::TextTooLong, "user_id", limit, got));
    }
    Ok(())
}
