//! Several values in one text, one per line. `js/src/sdk.js` passes them this way, because each argument costs glue in
//! every package.

use subway_sdk_core::{Config, Page};

use crate::store::take_number;

/// Reader of values from the front of a text; a missing value is empty, or the default.
pub(crate) struct Fields<'a> {
    rest: &'a str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Reads the next value.
    pub(crate) fn text(&mut self) -> &'a str {
        let end = self.rest.bytes().position(|byte| byte == b'\n').unwrap_or(self.rest.len());
        let text = &self.rest[..end];
        self.rest = self.rest.get(end + 1..).unwrap_or("");
        text
    }

    /// Reads the next value as a non-negative decimal integer.
    pub(crate) fn number(&mut self) -> Option<u64> {
        take_number(self.text()).map(|(number, _)| number)
    }

    /// Returns the rest of the text.
    pub(crate) fn rest(self) -> &'a str {
        self.rest
    }

    /// Reads the settings in the order of `js/src/texts.js`.
    pub(crate) fn config(&mut self) -> Config {
        // `performance.now()` stops during sleep on most systems.
        let mut config =
            Config { consent_required: self.number() == Some(1), mono_stops_asleep: true, ..Config::default() };
        for setting in [
            &mut config.max_queued_events,
            &mut config.max_queued_bytes,
            &mut config.max_batch_events,
            &mut config.max_batch_bytes,
            &mut config.flush_events,
        ] {
            if let Some(number) = self.number() {
                *setting = number as usize;
            }
        }
        for setting in [
            &mut config.flush_interval_ms,
            &mut config.persist_delay_ms,
            &mut config.session_background_ms,
            &mut config.session_idle_ms,
        ] {
            if let Some(number) = self.number() {
                *setting = number;
            }
        }
        config
    }

    /// Reads a page: path, title, referrer and time of entering, one per line. `None` if all are empty.
    pub(crate) fn page(&mut self) -> Option<Page> {
        let (path, title, referrer) = (self.text(), self.text(), self.text());
        let enter_ts = self.number().map(|ms| ms as i64);
        if path.is_empty() && title.is_empty() && referrer.is_empty() && enter_ts.is_none() {
            return None;
        }
        Some(Page { path: path.to_owned(), title: title.to_owned(), referrer: referrer.to_owned(), enter_ts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_left_out_keep_their_defaults() {
        let config = Fields::new("1\n500\n\n20").config();
        assert_eq!((config.consent_required, config.max_queued_events), (true, 500));
        assert_eq!((config.max_queued_bytes, config.max_batch_events), (Config::default().max_queued_bytes, 20));
        assert_eq!(config.session_idle_ms, Config::default().session_idle_ms);
    }

    #[test]
    fn a_page_is_four_lines_and_what_follows_stays() {
        let mut fields = Fields::new("a\n首页\n\n7\n\n\n\n\n{\"k\":\n1}");
        let expected = Page { path: "a".into(), title: "首页".into(), referrer: String::new(), enter_ts: Some(7) };
        assert_eq!(fields.page(), Some(expected));
        assert_eq!(fields.page(), None);
        assert_eq!(fields.rest(), "{\"k\":\n1}");
    }
}
