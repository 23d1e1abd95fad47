//! Builds the reloadable state from the configuration, at the start and at every reload.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::Mutex;

use super::{DataDir, StartError};
use crate::auth::{AppRegistry, RegisteredApp};
use crate::config::{self, Config, TlsConfig};
use crate::http::{AppState, ReloadableState};
use crate::limit::AppQuota;
use crate::sinks::sqlite::EmbeddedSink;
use crate::spool::{Horizon, Horizons, Spool};

/// Certificate of new connections; `None` if the collector serves plain HTTP.
pub(super) type Certificate = Option<Arc<ArcSwap<ServerConfig>>>;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Applies another configuration to a running collector.
pub(crate) struct Reloader {
    pub(super) state: Arc<AppState>,
    pub(super) spool: Spool,
    /// `None` if it is off.
    pub(super) embedded: Option<Arc<EmbeddedSink>>,
    pub(super) data_dir: Arc<DataDir>,
    pub(super) certificate: Certificate,
    pub(super) running: Mutex<Config>,
}

impl Reloader {
    /// Applies a configuration: apps with their zones, tokens, secrets and rates, the admin token, limits, trusted
    /// proxies and the certificate. Requests in progress finish under the old one. Returns the keys whose change needs
    /// a restart.
    ///
    /// # Errors
    /// If the configuration cannot be applied; then nothing has changed.
    pub(crate) async fn reload(self: &Arc<Self>, config: Config) -> Result<Vec<&'static str>, StartError> {
        let mut running = self.running.lock().await;
        let unchanged = config.needs_restart(&running);
        let config = config.applied_to(&running);
        let this = Arc::clone(self);
        let applying = tokio::task::spawn_blocking(move || this.apply(&config).map(|()| config));
        let applied = applying.await.unwrap_or_else(|error| Err(StartError::Interrupted(error.to_string())));
        self.state.telemetry.count_reload(applied.is_ok());
        *running = applied?;
        Ok(unchanged)
    }

    /// Counts a configuration that could not be read.
    pub(crate) fn count_refused(&self) {
        self.state.telemetry.count_reload(false);
    }

    /// Applies `config`. Everything that can fail comes first, so that a failure changes nothing.
    fn apply(&self, config: &Config) -> Result<(), StartError> {
        let certificate = config.tls.as_ref().map(TlsConfig::load).transpose()?;
        let before = self.state.current();
        let reloadable = reloadable(config, &self.data_dir, &self.spool, Some(&before.registry))?;
        if let Some(embedded) = &self.embedded {
            embedded.set_timezones(&config.zones())?;
        }
        if let (Some(place), Some(certificate)) = (&self.certificate, certificate) {
            place.store(certificate);
        }
        self.state.memory_budget.set_cap(config.limits.in_flight_bytes);
        self.state.ingestor.set_limits(config.limits.clone());
        self.state.reloadable.store(Arc::new(reloadable));
        Ok(())
    }
}

/// Builds the state that requests load. Blocks.
pub(super) fn reloadable(
    config: &Config,
    data_dir: &DataDir,
    spool: &Spool,
    before: Option<&AppRegistry>,
) -> Result<ReloadableState, StartError> {
    let registry = registry(config, data_dir, spool, before)?;
    Ok(ReloadableState { registry, limits: config.limits.clone(), proxies: config.trusted_proxies.clone() })
}

/// Returns how far back the event IDs of each app are remembered.
fn horizons(config: &Config, numbers: &HashMap<String, i64>) -> Horizons {
    let horizon =
        |days: u64, bytes| Horizon { age_ms: i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(DAY_MS), bytes };
    let (days, bytes) = (config.limits.dedup_days, config.limits.dedup_bytes);
    let own = |app: &config::AppConfig| {
        let number = numbers.get(&app.key)?;
        Some((*number, horizon(app.dedup_days.unwrap_or(days), app.dedup_bytes.unwrap_or(bytes))))
    };
    Horizons { other: horizon(days, bytes), apps: config.apps.iter().filter_map(own).collect() }
}

/// Builds the apps with their numbers and tokens. Tokens that the configuration lacks are created when first needed.
fn registry(
    config: &Config,
    data_dir: &DataDir,
    spool: &Spool,
    before: Option<&AppRegistry>,
) -> Result<AppRegistry, StartError> {
    let numbers = spool.app_numbers(config.apps.iter().map(|app| app.key.clone()).collect())?;
    spool.set_horizons(horizons(config, &numbers))?;
    let mut apps = Vec::new();
    for app in &config.apps {
        let read_token = match &app.read_token {
            Some(token) => token.clone(),
            None => data_dir.token(&format!("read-token-{}", app.key), &format!("read token of app {}", app.key))?,
        };
        let number = numbers.get(&app.key).copied().unwrap_or_default();
        let mut quota = AppQuota::new(app.requests_per_second, app.events_per_second, app.bytes_per_second);
        if let Some(old) = before.and_then(|registry| registry.app(&app.key)) {
            quota = quota.carry_over(&old.quota);
        }
        let new = RegisteredApp::new(app.key.clone(), number, app.timezone.clone(), app.secret.clone(), read_token);
        apps.push(new.with_quota(quota).with_past_days(app.past_days));
    }
    let admin = match &config.admin_token {
        Some(token) => token.clone(),
        None => data_dir.token("admin-token", "admin token")?,
    };
    Ok(AppRegistry::new(apps, admin))
}
