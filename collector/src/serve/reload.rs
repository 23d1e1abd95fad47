//! Keys and limits, made at the start and made anew when the configuration is read again.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::Mutex;

use super::{DataDir, StartError};
use crate::auth::{App, Keys};
use crate::config::{self, Config, Tls};
use crate::http::{Live, Shared};
use crate::limit::Quota;
use crate::sinks::sqlite::EmbeddedSink;
use crate::spool::{Horizon, Horizons, Spool};

/// The certificate of new connections; `None` if the collector speaks plain HTTP.
pub(super) type Certificate = Option<Arc<ArcSwap<ServerConfig>>>;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Lets a running collector have another configuration.
pub(crate) struct Reloader {
    pub(super) shared: Arc<Shared>,
    pub(super) spool: Spool,
    /// `None`: it is off.
    pub(super) embedded: Option<Arc<EmbeddedSink>>,
    pub(super) data_dir: Arc<DataDir>,
    pub(super) certificate: Certificate,
    pub(super) running: Mutex<Config>,
}

impl Reloader {
    /// Takes over a configuration: apps with their zones, tokens, secrets and rates, the admin token, limits, trusted
    /// proxies and the certificate. Requests in flight finish under the old one. Gives the keys that differ and that only
    /// a restart changes.
    ///
    /// # Errors
    /// If something needed cannot be had; nothing has changed then.
    pub(crate) async fn reload(self: &Arc<Self>, config: Config) -> Result<Vec<&'static str>, StartError> {
        let mut running = self.running.lock().await;
        let left = config.needs_restart(&running);
        let config = config.applied_to(&running);
        let this = Arc::clone(self);
        let applying = tokio::task::spawn_blocking(move || this.apply(&config).map(|()| config));
        let applied = applying.await.unwrap_or_else(|error| Err(StartError::Interrupted(error.to_string())));
        self.shared.telemetry.count_reload(applied.is_ok());
        *running = applied?;
        Ok(left)
    }

    /// Counts a configuration that could not even be read.
    pub(crate) fn refused(&self) {
        self.shared.telemetry.count_reload(false);
    }

    /// Everything that can fail comes first.
    fn apply(&self, config: &Config) -> Result<(), StartError> {
        let certificate = config.tls.as_ref().map(Tls::load).transpose().map_err(StartError::Tls)?;
        let before = self.shared.live();
        let live = live(config, &self.data_dir, &self.spool, Some(&before.keys))?;
        if let Some(embedded) = &self.embedded {
            embedded.set_timezones(&config.zones())?;
        }
        if let (Some(place), Some(certificate)) = (&self.certificate, certificate) {
            place.store(certificate);
        }
        self.shared.budget.set_cap(config.limits.in_flight_bytes);
        self.shared.acceptor.set_limits(config.limits.clone());
        self.shared.live.store(Arc::new(live));
        Ok(())
    }
}

/// What requests are judged by. Blocks.
pub(super) fn live(
    config: &Config,
    data_dir: &DataDir,
    spool: &Spool,
    before: Option<&Keys>,
) -> Result<Live, StartError> {
    let keys = keys(config, data_dir, spool, before)?;
    Ok(Live { keys, limits: config.limits.clone(), proxies: config.trusted_proxies.clone() })
}

/// How far back each app's event IDs are remembered.
fn horizons(config: &Config, numbers: &HashMap<String, i64>) -> Horizons {
    let horizon =
        |days: u64, bytes| Horizon { age_ms: i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(DAY_MS), bytes };
    let (days, bytes) = (config.limits.dedup_days, config.limits.dedup_bytes);
    let own = |app: &config::App| {
        let number = numbers.get(&app.key)?;
        Some((*number, horizon(app.dedup_days.unwrap_or(days), app.dedup_bytes.unwrap_or(bytes))))
    };
    Horizons { other: horizon(days, bytes), apps: config.apps.iter().filter_map(own).collect() }
}

/// The apps with their numbers and tokens. Tokens that the configuration does not give are made when first needed.
fn keys(config: &Config, data_dir: &DataDir, spool: &Spool, before: Option<&Keys>) -> Result<Keys, StartError> {
    let numbers = spool.app_numbers(config.apps.iter().map(|app| app.key.clone()).collect())?;
    spool.set_horizons(horizons(config, &numbers))?;
    let mut apps = Vec::new();
    for app in &config.apps {
        let read_token = match &app.read_token {
            Some(token) => token.clone(),
            None => data_dir.token(&format!("read-token-{}", app.key), &format!("read token of app {}", app.key))?,
        };
        let number = numbers.get(&app.key).copied().unwrap_or_default();
        let mut quota = Quota::new(app.requests_per_second, app.events_per_second, app.bytes_per_second);
        if let Some(old) = before.and_then(|keys| keys.app(&app.key)) {
            quota = quota.continuing(&old.quota);
        }
        let new = App::new(app.key.clone(), number, app.timezone.clone(), app.secret.clone(), read_token);
        apps.push(new.with_quota(quota).with_past(app.past_days));
    }
    let admin = match &config.admin_token {
        Some(token) => token.clone(),
        None => data_dir.token("admin-token", "admin token")?,
    };
    Ok(Keys::new(apps, admin))
}
