//! Several values in one text, a value a line: how `js/sdk.js` hands over what would else be many arguments.

use subway_sdk_core::{Config, Context, Page};

/// Takes values off the front; a missing one is empty, or the default.
pub(crate) struct Fields<'a>(std::str::Split<'a, char>);

impl<'a> Fields<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self(text.split('\n'))
    }

    fn text(&mut self) -> String {
        self.0.next().unwrap_or("").to_owned()
    }

    /// A whole number from 0 in decimal digits.
    fn number(&mut self) -> Option<u64> {
        self.0.next()?.parse().ok()
    }
}

/// The settings that `js/options.js` lists in this order, and the most bytes that the host takes under one key.
pub(crate) fn config(text: &str) -> (Config, usize) {
    let mut fields = Fields::new(text);
    let mut config = Config::default();
    let key_bytes = fields.number().unwrap_or(190 * 1024) as usize;
    config.consent_required = fields.number() == Some(1);
    for setting in [
        &mut config.queue_rows,
        &mut config.queue_bytes,
        &mut config.batch_events,
        &mut config.batch_bytes,
        &mut config.flush_events,
    ] {
        if let Some(number) = fields.number() {
            *setting = number as usize;
        }
    }
    for setting in [
        &mut config.flush_interval_ms,
        &mut config.persist_delay_ms,
        &mut config.session_background_ms,
        &mut config.session_idle_ms,
    ] {
        if let Some(number) = fields.number() {
            *setting = number;
        }
    }
    (config, key_bytes)
}

/// App, SDK, host, device and network in the order of [`Context`].
pub(crate) fn context(text: &str) -> Context {
    let mut fields = Fields::new(text);
    Context {
        app_version: fields.text(),
        sdk_name: fields.text(),
        sdk_version: fields.text(),
        platform: fields.text(),
        host_app: fields.text(),
        host_version: fields.text(),
        os: fields.text(),
        os_version: fields.text(),
        brand: fields.text(),
        model: fields.text(),
        screen: fields.text(),
        language: fields.text(),
        timezone: fields.text(),
        network: fields.text(),
    }
}

/// Path, title, referrer and the time of entering; no page if the text is empty.
pub(crate) fn page(text: &str) -> Option<Page> {
    if text.is_empty() {
        return None;
    }
    let mut fields = Fields::new(text);
    let (path, title, referrer) = (fields.text(), fields.text(), fields.text());
    Some(Page { path, title, referrer, enter_ts: fields.number().map(|ms| ms as i64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_left_out_keep_their_defaults() {
        let (config, key_bytes) = config("1000\n1\n500\n\n20");
        assert_eq!((key_bytes, config.consent_required, config.queue_rows), (1000, true, 500));
        assert_eq!((config.queue_bytes, config.batch_events), (Config::default().queue_bytes, 20));
        assert_eq!(config.session_idle_ms, Config::default().session_idle_ms);
        assert_eq!(super::config("").1, 190 * 1024);
    }

    #[test]
    fn a_page_is_its_lines() {
        assert_eq!(page(""), None);
        let expected = Page { path: "a".into(), title: "首页".into(), referrer: String::new(), enter_ts: Some(7) };
        assert_eq!(page("a\n首页\n\n7"), Some(expected));
        assert_eq!(page("a"), Some(Page { path: "a".into(), ..Page::default() }));
    }
}
