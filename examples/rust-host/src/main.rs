//! Example host, a ticket kiosk with analytics: `subway-example-rust-host URL KEY DATA_DIR`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use subway_mobile::{Config, HostInfo, Ledger, Page, Subway, Theme, TrackEvent, desktop_device};

/// Timeout for the upload of the last events when the kiosk is switched off.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [to, key, data_dir] = &args[..] else { anyhow::bail!("usage: subway-example-rust-host URL KEY DATA_DIR") };
    let (ledger, complete) = simulate_customer(to, key, data_dir, UPLOAD_TIMEOUT)?;
    let waiting = if complete { "everything has arrived" } else { "some events wait for the next run" };
    println!("{waiting}: {} acknowledged of {}", ledger.acked, ledger.generated);
    Ok(())
}

/// Simulates use of the kiosk. Returns the ledger, and whether every event arrived within `timeout`.
fn simulate_customer(to: &str, key: &str, data_dir: &str, timeout: Duration) -> Result<(Ledger, bool)> {
    let subway = Subway::open(Config {
        data_dir: Some(data_dir.to_owned()),
        app_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: HostInfo { platform: "rust".into(), app: "ticket-kiosk".into(), ..HostInfo::default() },
        device: desktop_device(),
        ..Config::new(to, key)
    })
    .context("the SDK could not be opened")?;

    subway.register(json!({"station": "Xizhimen", "kiosk": 3}).to_string())?;
    subway.foreground();
    subway.track(TrackEvent::new(Theme::Lifecycle, "kiosk_woken"))?;
    show(&subway, "welcome", "")?;
    subway.track(TrackEvent::new(Theme::Click, "start"))?;
    show(&subway, "destinations", "welcome")?;
    subway.timer_start("choosing".into());
    subway.identify("card-8000-1234".into())?;
    subway.timer_end("choosing".into(), TrackEvent::new(Theme::Performance, "destination_chosen"))?;
    let order = json!({"order": "T-1001", "to": "Sanyuanqiao", "price": 5.0, "currency": "CNY"});
    subway.track(TrackEvent::new(Theme::Order, "ticket_paid").with_props(&order))?;
    subway.logout();
    subway.track(TrackEvent::new(Theme::Lifecycle, "customer_left"))?;
    subway.background();

    let complete = subway.close(timeout);
    for notice in subway.take_notices() {
        eprintln!("subway: {notice}");
    }
    Ok((subway.ledger(), complete))
}

/// Shows a page: later events happen on it, the first of them is the view itself.
fn show(subway: &Arc<Subway>, path: &str, from: &str) -> Result<()> {
    subway.set_page(Some(Page { path: path.into(), referrer: from.into(), ..Page::default() }));
    subway.track(TrackEvent::new(Theme::View, "page_view"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_collector_customers_are_served_and_events_wait() {
        let dir = tempfile::TempDir::new().unwrap();
        let data = dir.path().to_str().unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = format!("http://{}", nobody.local_addr().unwrap());
        drop(nobody);
        for customers in 1..=2 {
            let (ledger, complete) = simulate_customer(&to, "demo", data, Duration::from_millis(50)).unwrap();
            assert_eq!((ledger.generated, ledger.queued, complete), (7 * customers, 7 * customers, false));
        }
    }
}
