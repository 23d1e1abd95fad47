//! What a line of the log becomes: events, and the device they come from.

use serde_json::{Value, json};
use subway_mobile::{DeviceInfo, HostInfo, Page, Theme, TrackEvent};
use woothee::parser::Parser;

use subway_access_log::Request;

/// The longest URL kept as a property, bytes: what a usual server takes as a request line.
const URL_BYTES: usize = 8190;
/// The longest text of properties, bytes, so that they fit into an event together with the page.
const PROPS_BYTES: usize = 16 * 1024;
/// The longest URL kept if more would not fit: a URL full of control characters, each of which needs six bytes as JSON.
const ESCAPED_URL_BYTES: usize = 1024;

/// A `view` where the rule says so, then always a `network` event.
pub(crate) fn events(request: &Request) -> Vec<TrackEvent> {
    let page = Page {
        path: request.path().to_owned(),
        referrer: request.referrer.clone().unwrap_or_default(),
        ..Page::default()
    };
    let at = |event: TrackEvent| event.with_page(page.clone()).with_true_ts(request.time);
    let view = request.is_view().then(|| at(TrackEvent::new(Theme::View, "page_view")));
    let network = at(TrackEvent::new(Theme::Network, "request").with_props(&properties(request)));
    view.into_iter().chain([network]).collect()
}

/// The properties of the `network` event.
fn properties(request: &Request) -> Value {
    let with_url = |max_bytes: usize| {
        json!({
            "method": request.method,
            "url": cut(&request.url, max_bytes),
            "status": request.status,
            "bytes": request.bytes,
        })
    };
    let whole = with_url(URL_BYTES);
    if whole.to_string().len() > PROPS_BYTES { with_url(ESCAPED_URL_BYTES) } else { whole }
}

/// The longest beginning that ends between characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The system and the browser that a user agent names, as far as woothee knows them.
pub(crate) fn device(agent: Option<&str>) -> (DeviceInfo, HostInfo) {
    let known = |text: &str| if text == "UNKNOWN" { String::new() } else { text.to_owned() };
    let mut host = HostInfo { platform: "web".to_owned(), ..HostInfo::default() };
    let mut device = DeviceInfo::default();
    if let Some(found) = agent.and_then(|agent| Parser::new().parse(agent)) {
        device.os = known(found.os);
        device.os_version = known(&found.os_version);
        host.app = known(found.name);
        host.version = known(found.version);
    }
    (device, host)
}

/// One event as a line for the JS player.
pub(crate) fn ndjson(install: &str, event: &TrackEvent, device: &DeviceInfo) -> Value {
    let page = event.page.clone().unwrap_or_default();
    let props: Value = serde_json::from_str(&event.props).unwrap_or_else(|_| json!({}));
    json!({
        "install": install,
        "theme": if event.theme == Theme::View { "view" } else { "network" },
        "code": event.code,
        "props": props,
        "trueTs": event.true_ts,
        "page": {"path": page.path, "title": page.title, "referrer": page.referrer},
        "device": {"os": device.os, "osVersion": device.os_version},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use subway_access_log::parse;

    const LINE: &str =
        r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /a?b=c HTTP/1.1" 200 77 "http://r.example/" "UA""#;

    #[test]
    fn a_page_is_a_view_and_a_request() {
        let events = events(&parse(LINE.as_bytes()).unwrap());
        let codes: Vec<(Theme, &str)> = events.iter().map(|event| (event.theme, event.code.as_str())).collect();
        assert_eq!(codes, [(Theme::View, "page_view"), (Theme::Network, "request")]);
        for event in &events {
            let page = event.page.as_ref().unwrap();
            assert_eq!((page.path.as_str(), page.referrer.as_str()), ("/a", "http://r.example/"));
            assert_eq!(event.true_ts, Some(1_431_857_103_000));
        }
        let props: Value = serde_json::from_str(&events[1].props).unwrap();
        assert_eq!(props, json!({"method": "GET", "url": "/a?b=c", "status": 200, "bytes": 77}));
    }

    #[test]
    fn anything_else_is_a_request_only() {
        let request = parse(LINE.replace("GET", "POST").replace(" 77 ", " - ").as_bytes()).unwrap();
        let events = events(&request);
        assert_eq!(events.len(), 1);
        assert!(events[0].props.contains("\"bytes\":0"), "{}", events[0].props);
    }

    #[test]
    fn a_long_url_is_cut_between_characters_and_fits_into_an_event() {
        let url = |text: String| {
            let event = events(&parse(LINE.replace("/a?b=c", &text).as_bytes()).unwrap()).remove(1);
            let input = subway_mobile::core::Input {
                theme: subway_mobile::core::Theme::Network,
                code: "request",
                props: &event.props,
                page: None,
                true_ts: None,
            };
            assert_eq!(input.check(), Ok(()));
            assert!(event.props.len() <= PROPS_BYTES);
            serde_json::from_str::<Value>(&event.props).unwrap()["url"].as_str().unwrap().to_owned()
        };
        let long = url(format!("/{}", "页".repeat(9000)));
        assert!(long.len() > 8186 && long.len() <= 8190 && long.ends_with('页'));
        assert_eq!(url(format!("/{}", r"\x01".repeat(9000))).len(), 1024);
    }

    #[test]
    fn devices_come_from_the_user_agent() {
        let agent = "Mozilla/5.0 (Windows NT 6.1; WOW64; rv:27.0) Gecko/20100101 Firefox/27.0";
        let (device, host) = device(Some(agent));
        assert_eq!((device.os.as_str(), device.os_version.as_str()), ("Windows 7", "NT 6.1"));
        assert_eq!((host.platform.as_str(), host.app.as_str(), host.version.as_str()), ("web", "Firefox", "27.0"));
        for unknown in [None, Some("-"), Some("UNKNOWN"), Some("something else")] {
            assert_eq!(super::device(unknown).0, DeviceInfo::default());
        }
    }
}
