//! Builds the collector from its parts, serves until shutdown, and drains. Makes no decisions of its own.

mod connections;
mod control;
mod data_dir;
mod reload;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use connections::Connections;
pub(crate) use control::connect_control;
pub use data_dir::StartError;
pub(crate) use data_dir::{CONFIG_PATH, DataDir, refuse_newer_at_rest};
pub(crate) use reload::Reloader;

use crate::accept::{Ingestor, SharedBudget};
use crate::config::{Config, TlsConfig, WhenFull};
use crate::fanout::{self, Fanout, FanoutContext, Replayer, SinkProgress};
use crate::http::router::{operations_router, router};
use crate::http::{AppState, ReloadableState};
use crate::limit::ClientBuckets;
use crate::process::ProcessMetrics;
use crate::query::{self, ReadBarrier, Reader};
use crate::sinks::sqlite::{self, EmbeddedSink, StoreBackfill};
use crate::sinks::{self, BackfillSource, Sink};
use crate::spool::{self, SinkState, Spool};
use crate::telemetry::Telemetry;

/// Time for which a query waits until the store has the events that were acknowledged before it. Usually some
/// milliseconds suffice. A store that is further behind answers from what it has.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Time in which requests in progress can finish at a shutdown. The whole drain must fit in 10 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);

/// Time in which the sinks' workers can finish their deliveries. Unfinished ones are repeated at the next start.
const FANOUT_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval of retention in the embedded store. Retention counts in days, so a longer one would do too.
const RETENTION_INTERVAL: Duration = Duration::from_secs(5);

/// A collector that is started and ready to serve.
pub(crate) struct Collector {
    state: Arc<AppState>,
    spool: Spool,
    fanout: Fanout,
    replayer: Replayer,
    reloader: Arc<Reloader>,
    retention: JoinHandle<()>,
    /// Listener for operators, if they have one of their own.
    operators: Option<TcpListener>,
    /// Locked while the collector runs, which keeps other processes out.
    data_dir: Arc<DataDir>,
}

/// Serves on `listener` until `shutdown` resolves, then drains: accepts no new connections, answers the requests in
/// progress and closes the spool.
///
/// # Errors
/// If the collector cannot start. See [`StartError`].
pub async fn run(config: Config, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    Collector::start(config).await?.serve(listener, shutdown, |_| {}).await
}

impl Collector {
    /// Locks the data directory, opens everything in it and starts the sinks' workers.
    ///
    /// # Errors
    /// See [`StartError`].
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        let opening = tokio::task::spawn_blocking(move || Components::new(config));
        let Components { config, data_dir, telemetry, spool, reloadable, certificate, embedded, sinks, reader } =
            opening.await.map_err(|error| StartError::Interrupted(error.to_string()))??;
        let history =
            embedded.as_ref().map(|_| Arc::new(StoreBackfill::new(data_dir.path())) as Arc<dyn BackfillSource>);
        let surroundings = FanoutContext {
            history,
            spool_max_bytes: config.limits.spool_max_bytes,
            telemetry: Arc::clone(&telemetry),
        };
        let replayer = Replayer::new(spool.clone(), sinks.iter().map(|(sink, _)| Arc::clone(sink)).collect());
        let fanout = Fanout::start(&spool, sinks, surroundings).await?;
        let source =
            fanout.progress().iter().find(|progress| Some(progress.name()) == config.query_source.as_deref()).cloned();
        let state = Arc::new(AppState {
            reloadable: ArcSwap::from_pointee(reloadable),
            clients: Mutex::new(ClientBuckets::default()),
            ingestor: Ingestor::new(spool.clone(), config.limits.clone(), Arc::clone(&telemetry)),
            reader,
            read_barrier: Box::new(SpoolReadBarrier { spool: spool.clone(), source, embedded: fanout.embedded() }),
            memory_budget: SharedBudget::new("the bytes being worked on", config.limits.in_flight_bytes),
            process: ProcessMetrics::start(data_dir.path()),
            telemetry,
            connections: Arc::default(),
            draining: AtomicBool::new(false),
        });
        let data_dir = Arc::new(data_dir);
        let retention = tokio::spawn(run_retention(embedded.clone()));
        let reloader = Arc::new(Reloader {
            state: Arc::clone(&state),
            spool: spool.clone(),
            embedded,
            data_dir: Arc::clone(&data_dir),
            certificate,
            running: tokio::sync::Mutex::new(config),
        });
        warn_of_unconfigured(&spool).await;
        Ok(Self { state, spool, fanout, replayer, reloader, retention, operators: None, data_dir })
    }

    /// Returns a handle that applies another configuration to the running collector.
    #[must_use]
    pub(crate) fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    /// Returns the URL of the collector at `address`.
    fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.reloader.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Saves the path of the configuration file in the data directory, for commands that run later.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn save_config_path(&self, file: Option<&Path>) -> Result<(), StartError> {
        let text = file.map(|file| file.display().to_string()).unwrap_or_default();
        self.data_dir.write(CONFIG_PATH, &text)
    }

    /// Serves metrics and administration on `listener` instead of the main listener.
    #[must_use]
    pub(crate) fn with_operators_listener(self, listener: TcpListener) -> Self {
        Self { operators: Some(listener), ..self }
    }

    /// Serves until `shutdown` resolves, then drains. Calls `ready` with the URL as soon as connections are accepted.
    ///
    /// # Errors
    /// If the listener has no address, or the spool's writer has ended by itself: then the collector can store nothing
    /// until it is restarted.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
        ready: impl FnOnce(&str),
    ) -> Result<(), StartError> {
        let address = listener.local_addr().map_err(|error| StartError::Listen(error.to_string()))?;
        let certificate = self.reloader.certificate.clone();
        let app = router(Arc::clone(&self.state), self.operators.is_none());
        let mut connections = Connections::new(Arc::clone(&self.state), app, certificate.clone());
        let app = operations_router(Arc::clone(&self.state));
        let mut operators = Connections::for_operators(Arc::clone(&self.state), app, certificate);
        if let Some(address) = self.operators.as_ref().and_then(|listener| listener.local_addr().ok()) {
            tracing::info!(url = self.url(address), "metrics and administration are served apart");
        }
        ready(&self.url(address));
        let serving_operators = async {
            match &self.operators {
                Some(listener) => operators.accept_loop(listener).await,
                None => std::future::pending().await,
            }
        };
        let control = control::serve(self.data_dir.path(), self.replayer.clone(), self.spool.clone());
        let was_requested = tokio::select! {
            () = connections.accept_loop(&listener) => true,
            () = serving_operators => true,
            () = control, if cfg!(unix) => true,
            () = shutdown => true,
            () = self.spool.ended() => false,
        };
        drop((listener, self.operators));
        tracing::info!(was_requested, "draining");
        self.state.draining.store(true, Ordering::Relaxed);
        tokio::join!(connections.drain(DRAIN_TIMEOUT), operators.drain(DRAIN_TIMEOUT));
        self.retention.abort();
        let _ = self.retention.await;
        self.fanout.drain(FANOUT_STOP_TIMEOUT).await;
        let spool = self.spool;
        let _ = tokio::task::spawn_blocking(move || spool.close()).await;
        tracing::info!("stopped");
        if was_requested { Ok(()) } else { Err(StartError::WriterEnded) }
    }
}

/// Runs retention in the embedded store, step by step, until it is aborted.
async fn run_retention(embedded: Option<Arc<EmbeddedSink>>) {
    let Some(embedded) = embedded else { return };
    loop {
        match embedded.run_retention_step().await {
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => tokio::time::sleep(RETENTION_INTERVAL).await,
            Err(error) => {
                tracing::warn!(%error, "timed retention in the embedded store failed; it will be tried again");
                tokio::time::sleep(RETENTION_INTERVAL).await;
            }
        }
    }
}

/// Logs the sinks that the configuration no longer has, once. Nothing is delivered to them, which may be a mistake.
async fn warn_of_unconfigured(spool: &Spool) {
    let spool = spool.clone();
    let Ok(Ok(ledger)) = tokio::task::spawn_blocking(move || spool.ledger()).await else { return };
    for (sink, figures) in ledger.sinks.iter().filter(|(_, figures)| figures.state == SinkState::Unconfigured) {
        tracing::warn!(
            sink,
            pending = figures.pending,
            "this sink is not in the configuration any more: nothing is delivered to it and nothing is kept for it; put it back, or say \
             that it will not come back with `subway-collector sinks retire`"
        );
    }
}

/// Lets queries wait until the store that they read has caught up with the spool.
struct SpoolReadBarrier {
    spool: Spool,
    /// Sink that queries are answered from.
    source: Option<SinkProgress>,
    embedded: Option<SinkProgress>,
}

#[async_trait]
impl ReadBarrier for SpoolReadBarrier {
    async fn wait(&self) {
        let Some(source) = &self.source else { return };
        let head = self.spool.head();
        let reached = source.wait_for(head, READ_TIMEOUT).await;
        let (position, parked) = (source.delivered_to(), source.parked());
        if !reached || parked > 0 {
            tracing::warn!(position, parked, head, "a query is answered from a store that is behind");
        }
    }

    fn complete_from(&self) -> Option<i64> {
        self.source.as_ref().and_then(SinkProgress::complete_from)
    }

    fn position(&self) -> u64 {
        self.embedded.as_ref().map_or(0, SinkProgress::delivered_to)
    }
}

/// Parts of the collector that are opened with blocking calls.
struct Components {
    config: Config,
    data_dir: DataDir,
    telemetry: Arc<Telemetry>,
    spool: Spool,
    reloadable: ReloadableState,
    certificate: reload::Certificate,
    embedded: Option<Arc<EmbeddedSink>>,
    sinks: Vec<(Arc<dyn Sink>, fanout::DeliverySettings)>,
    reader: Arc<dyn Reader>,
}

impl Components {
    fn new(config: Config) -> Result<Self, StartError> {
        let data_dir = DataDir::lock(&config.data_dir)?;
        let telemetry = Arc::new(Telemetry::default());
        let settings = spool::SpoolSettings {
            queue: usize::try_from(config.limits.queue_requests).unwrap_or(usize::MAX),
            commit_bytes: config.limits.commit_bytes,
            install_clocks: config.limits.install_clocks,
            dead_letter_bytes: config.limits.dead_letter_bytes,
            dedup: spool::DedupSettings {
                fresh_ids: config.limits.dedup_fresh_ids,
                memory_bytes: config.limits.dedup_memory_bytes,
                ..spool::DedupSettings::default()
            },
        };
        let spool = Spool::open(data_dir.path(), &settings, Arc::clone(&telemetry))?;
        let certificate = config.tls.as_ref().map(TlsConfig::load).transpose()?;
        let certificate = certificate.map(|certificate| Arc::new(ArcSwap::new(certificate)));
        let reloadable = reload::reloadable(&config, &data_dir, &spool, None)?;
        let zones = config.zones();
        let embedded = open_embedded(&config, data_dir.path(), &zones, &telemetry)?;
        let mut sinks: Vec<(Arc<dyn Sink>, fanout::DeliverySettings)> = Vec::new();
        let sheds = config.embedded.when_full == WhenFull::DropOldest;
        let settings = fanout::DeliverySettings { drops_oldest: sheds, ..fanout::DeliverySettings::embedded() };
        sinks.extend(embedded.iter().map(|sink| (Arc::clone(sink) as Arc<dyn Sink>, settings.clone())));
        for sink in &config.sinks {
            let sink_error = |error| StartError::Sink(sink.name.clone(), error);
            let opened = sinks::open(sink, &zones, telemetry.sink(&sink.name)).map_err(sink_error)?;
            sinks.push((opened, fanout::DeliverySettings::of(&sink.delivery)));
        }
        let sink_error = |error| StartError::Sink(config.query_source.clone().unwrap_or_default(), error);
        let reader = query::open(&config, data_dir.path()).map_err(sink_error)?;
        Ok(Self { config, data_dir, telemetry, spool, reloadable, certificate, embedded, sinks, reader })
    }
}

/// Opens the embedded store, if it is on.
fn open_embedded(
    config: &Config,
    dir: &Path,
    zones: &[(String, String)],
    telemetry: &Arc<Telemetry>,
) -> Result<Option<Arc<EmbeddedSink>>, StartError> {
    if !config.embedded.enabled {
        let file = dir.join(sqlite::FILE);
        if file.exists() {
            tracing::warn!(file = %file.display(), "the embedded store is off; the one from before is left as it is");
        }
        return Ok(None);
    }
    let embedded = EmbeddedSink::open_with(dir, &config.embedded, Arc::clone(telemetry))?;
    embedded.set_timezones(zones)?;
    Ok(Some(Arc::new(embedded)))
}

#[cfg(test)]
mod tests;
