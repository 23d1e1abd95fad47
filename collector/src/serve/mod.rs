//! Puts the rooms together and runs them until told to stop.

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
pub(crate) use control::connect;
pub use data_dir::StartError;
pub(crate) use data_dir::{CONFIG_PATH, DataDir, refuse_newer_at_rest};
pub(crate) use reload::Reloader;

use crate::accept::{Acceptor, Budget};
use crate::config::{Config, Tls, WhenFull};
use crate::fanout::{self, Fanout, Progress, Replayer, Surroundings};
use crate::http::router::{operating_router, router};
use crate::http::{Live, Shared};
use crate::limit::Clients;
use crate::process::Process;
use crate::query::{self, Freshness, Reader};
use crate::sinks::sqlite::{self, EmbeddedSink, StoreHistory};
use crate::sinks::{self, History, Sink};
use crate::spool::{self, SinkState, Spool};
use crate::telemetry::Telemetry;

/// How long a question waits for the store to catch up with what was acknowledged before it came. Normally it takes some
/// milliseconds; a store that is further behind answers with what it has rather than not at all.
const CATCH_UP: Duration = Duration::from_secs(2);

/// How long requests that were accepted may take to be answered once the collector is told to stop. The whole drain has
/// to fit in 10 s.
const DRAIN: Duration = Duration::from_secs(7);

/// How long the sinks' workers may take to finish what they are sending. What they have not finished they repeat at the
/// next start.
const FANOUT_STOP: Duration = Duration::from_secs(2);

/// How often the embedded store is asked whether something is too old. Days are long.
const UPKEEP: Duration = Duration::from_secs(5);

/// A collector that has everything open and is about to serve.
pub(crate) struct Collector {
    shared: Arc<Shared>,
    spool: Spool,
    fanout: Fanout,
    replayer: Replayer,
    reloader: Arc<Reloader>,
    upkeep: JoinHandle<()>,
    /// Where operators are served, if not with everybody else.
    operators: Option<TcpListener>,
    /// Held as long as the collector lives: keeps other processes out.
    data_dir: Arc<DataDir>,
}

/// Serves on `listener` until `shutdown` resolves, then drains: no new connections, what was accepted is answered, the
/// spool is closed.
///
/// # Errors
/// If something needed cannot be had. See [`StartError`].
pub async fn run(config: Config, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    Collector::start(config).await?.serve(listener, shutdown, |_| {}).await
}

impl Collector {
    /// Takes the data directory, opens everything in it and starts the sinks' workers.
    ///
    /// # Errors
    /// See [`StartError`].
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        let opening = tokio::task::spawn_blocking(move || Opened::new(config));
        let Opened { config, data_dir, telemetry, spool, live, certificate, embedded, sinks, reader } =
            opening.await.map_err(|error| StartError::Interrupted(error.to_string()))??;
        let history = embedded.as_ref().map(|_| Arc::new(StoreHistory::new(data_dir.path())) as Arc<dyn History>);
        let surroundings =
            Surroundings { history, spool_bytes: config.limits.spool_max_bytes, telemetry: Arc::clone(&telemetry) };
        let replayer = Replayer::new(spool.clone(), sinks.iter().map(|(sink, _)| Arc::clone(sink)).collect());
        let fanout = Fanout::start(&spool, sinks, surroundings).await?;
        let source =
            fanout.progress().iter().find(|progress| Some(progress.name()) == config.query_source.as_deref()).cloned();
        let shared = Arc::new(Shared {
            live: ArcSwap::from_pointee(live),
            clients: Mutex::new(Clients::default()),
            acceptor: Acceptor::new(spool.clone(), config.limits.clone(), Arc::clone(&telemetry)),
            reader,
            freshness: Box::new(CatchUp { spool: spool.clone(), source, embedded: fanout.embedded() }),
            budget: Budget::new("the bytes being worked on", config.limits.in_flight_bytes),
            process: Process::begin(data_dir.path()),
            telemetry,
            connections: Arc::default(),
            draining: AtomicBool::new(false),
        });
        let data_dir = Arc::new(data_dir);
        let upkeep = tokio::spawn(upkeep(embedded.clone()));
        let reloader = Arc::new(Reloader {
            shared: Arc::clone(&shared),
            spool: spool.clone(),
            embedded,
            data_dir: Arc::clone(&data_dir),
            certificate,
            running: tokio::sync::Mutex::new(config),
        });
        warn_of_unconfigured(&spool).await;
        Ok(Self { shared, spool, fanout, replayer, reloader, upkeep, operators: None, data_dir })
    }

    /// Gives the collector another configuration while it runs.
    #[must_use]
    pub(crate) fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    /// Where a client reaches the collector at `address`.
    fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.reloader.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Notes in the data directory with which configuration file this collector runs, for commands that come later.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn note_config(&self, file: Option<&Path>) -> Result<(), StartError> {
        let text = file.map(|file| file.display().to_string()).unwrap_or_default();
        self.data_dir.write(CONFIG_PATH, &text)
    }

    /// Serves metrics and administration on `listener`, and no longer with everything else.
    #[must_use]
    pub(crate) fn with_operators(self, listener: TcpListener) -> Self {
        Self { operators: Some(listener), ..self }
    }

    /// Serves until `shutdown` resolves, then drains. `ready` is told the address, `http://..` or
    /// `https://..`, as soon as connections are taken.
    ///
    /// # Errors
    /// If the listener has no address, or the spool's writer has ended by itself: a collector that can never store again
    /// had better be started anew.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
        ready: impl FnOnce(&str),
    ) -> Result<(), StartError> {
        let address = listener.local_addr().map_err(|error| StartError::Listen(error.to_string()))?;
        let certificate = self.reloader.certificate.clone();
        let app = router(Arc::clone(&self.shared), self.operators.is_none());
        let mut connections = Connections::new(Arc::clone(&self.shared), app, certificate.clone());
        let app = operating_router(Arc::clone(&self.shared));
        let mut operators = Connections::of_operators(Arc::clone(&self.shared), app, certificate);
        if let Some(address) = self.operators.as_ref().and_then(|listener| listener.local_addr().ok()) {
            tracing::info!(url = self.url(address), "metrics and administration are served apart");
        }
        ready(&self.url(address));
        let serving_operators = async {
            match &self.operators {
                Some(listener) => operators.take(listener).await,
                None => std::future::pending().await,
            }
        };
        let control = control::serve(self.data_dir.path(), self.replayer.clone(), self.spool.clone());
        let asked = tokio::select! {
            () = connections.take(&listener) => true,
            () = serving_operators => true,
            () = control, if cfg!(unix) => true,
            () = shutdown => true,
            () = self.spool.ended() => false,
        };
        drop((listener, self.operators));
        tracing::info!(asked, "draining");
        self.shared.draining.store(true, Ordering::Relaxed);
        tokio::join!(connections.drain(DRAIN), operators.drain(DRAIN));
        self.upkeep.abort();
        let _ = self.upkeep.await;
        self.fanout.drain(FANOUT_STOP).await;
        let spool = self.spool;
        let _ = tokio::task::spawn_blocking(move || spool.close()).await;
        tracing::info!("stopped");
        if asked { Ok(()) } else { Err(StartError::WriterEnded) }
    }
}

/// Lets the embedded store do what retention asks for, step by step.
async fn upkeep(embedded: Option<Arc<EmbeddedSink>>) {
    let Some(embedded) = embedded else { return };
    loop {
        match embedded.retain().await {
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => tokio::time::sleep(UPKEEP).await,
            Err(error) => {
                tracing::warn!(%error, "retention in the embedded store failed; it will be tried again");
                tokio::time::sleep(UPKEEP).await;
            }
        }
    }
}

/// Says which sinks the configuration no longer has, once: nothing is delivered to them, and that may be a mistake.
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

/// Knows how far the stores are behind the spool.
struct CatchUp {
    spool: Spool,
    /// The sink that questions are answered from.
    source: Option<Progress>,
    embedded: Option<Progress>,
}

#[async_trait]
impl Freshness for CatchUp {
    async fn catch_up(&self) {
        let Some(source) = &self.source else { return };
        let head = self.spool.head();
        if !source.wait_for(head, CATCH_UP).await {
            let position = source.delivered_to();
            tracing::warn!(position, head, "a question is answered from a store that is behind");
        }
    }

    fn complete_from(&self) -> Option<i64> {
        self.source.as_ref().and_then(Progress::complete_from)
    }

    fn position(&self) -> u64 {
        self.embedded.as_ref().map_or(0, Progress::delivered_to)
    }
}

/// What has to be opened with blocking calls.
struct Opened {
    config: Config,
    data_dir: DataDir,
    telemetry: Arc<Telemetry>,
    spool: Spool,
    live: Live,
    certificate: reload::Certificate,
    embedded: Option<Arc<EmbeddedSink>>,
    sinks: Vec<(Arc<dyn Sink>, fanout::Settings)>,
    reader: Arc<dyn Reader>,
}

impl Opened {
    fn new(config: Config) -> Result<Self, StartError> {
        let data_dir = DataDir::take(&config.data_dir)?;
        let telemetry = Arc::new(Telemetry::default());
        let settings = spool::Settings {
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
        let certificate = config.tls.as_ref().map(Tls::load).transpose().map_err(StartError::Tls)?;
        let certificate = certificate.map(|certificate| Arc::new(ArcSwap::new(certificate)));
        let live = reload::live(&config, &data_dir, &spool, None)?;
        let zones = config.zones();
        let embedded = open_embedded(&config, data_dir.path(), &zones, &telemetry)?;
        let mut sinks: Vec<(Arc<dyn Sink>, fanout::Settings)> = Vec::new();
        let sheds = config.embedded.when_full == WhenFull::DropOldest;
        let settings = fanout::Settings { sheds, ..fanout::Settings::embedded() };
        sinks.extend(embedded.iter().map(|sink| (Arc::clone(sink) as Arc<dyn Sink>, settings.clone())));
        for sink in &config.sinks {
            let wrong = |error| StartError::Sink(sink.name.clone(), error);
            let opened = sinks::open(sink, &zones, telemetry.sink(&sink.name)).map_err(wrong)?;
            sinks.push((opened, fanout::Settings::of(&sink.delivery)));
        }
        let wrong = |error| StartError::Sink(config.query_source.clone().unwrap_or_default(), error);
        let reader = query::open(&config, data_dir.path()).map_err(wrong)?;
        Ok(Self { config, data_dir, telemetry, spool, live, certificate, embedded, sinks, reader })
    }
}

/// The embedded store, if it is on.
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
