//! [`Subway`], the object that a host uses.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use subway_sdk_core as core;
use subway_sdk_core::{Client, Input, MemoryStore};

use crate::clock::{Clock, SystemClock};
use crate::command_queue::{Barrier, Command, CommandQueue, PushError};
use crate::driver::{AnyStore, Barriers, Driver};
use crate::error::{OpenError, TrackError};
use crate::store::{SqliteStore, StoreHandle};
use crate::transport::{HttpTransport, Transport};
use crate::types::{Config, Consent, DeviceInfo, HostInfo, LastUpload, Ledger, Page, TrackEvent};
use crate::uploader;

/// Time that [`Subway::close`] waits for the last commit. A disk that takes longer hangs.
const FINAL_COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// One install of the SDK.
///
/// Every method can be called from any thread. Only [`Subway::open`], [`Subway::flush_and_wait`],
/// [`Subway::persist_and_wait`] and [`Subway::close`] wait for disk or network. Dropping the object stores everything
/// first; events that were not sent are sent in the next run.
#[derive(uniffi::Object)]
pub struct Subway {
    queue: Arc<CommandQueue>,
    clock: Arc<dyn Clock>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

impl Subway {
    /// Opens the SDK with a transport and clocks of the caller: for tests, and for hosts that share one
    /// [`HttpTransport`] between many installs or have a network stack of their own.
    ///
    /// # Errors
    /// As [`Subway::open`].
    pub fn open_with(
        config: &Config,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, OpenError> {
        let (store, handle) = open_store(config.data_dir.as_deref())?;
        let mut entropy = [0; 32];
        if getrandom::fill(&mut entropy).is_err() {
            // Without a source of randomness, nanoseconds and process ID tell processes apart, beside the clocks and
            // the stored salt.
            let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
            entropy[..8].copy_from_slice(&nanos.to_le_bytes());
            entropy[8..12].copy_from_slice(&std::process::id().to_le_bytes());
        }
        let context = config.context();
        let begin = |store| Client::open(store, config.settings.core(), &context.encode(), &entropy, clock.now());
        let client = match begin(store) {
            Err(core::OpenError::Store(error)) if error.is_full() || handle.replacement_failed() => {
                handle.report(in_memory(&error.to_string()));
                begin(AnyStore::Memory(MemoryStore::default()))
            }
            client => client,
        }
        .map_err(|error| OpenError::System(error.to_string()))?;
        let queue = Arc::new(CommandQueue::new(client.ledger(), client.install_id()));
        let system = |error: std::io::Error| OpenError::System(format!("no thread could be started: {error}"));
        let uploads = uploader::start(transport, handle.clone(), queue.clone()).map_err(system)?;
        let driver = Driver {
            client,
            context,
            clock: clock.clone(),
            queue: queue.clone(),
            uploads,
            store: handle,
            barriers: Barriers::default(),
        };
        let thread = std::thread::Builder::new().name("subway".into()).spawn(|| driver.run()).map_err(system)?;
        Ok(Arc::new(Self { queue, clock, driver: Mutex::new(Some(thread)) }))
    }

    fn send(&self, command: Command) {
        // After the stop nothing is left to do, and a full queue has added a diagnostic.
        let _ = self.queue.push(command);
    }

    fn now(&self) -> core::Now {
        self.clock.now()
    }

    /// Checks an event in the call, so that the developer gets the error where the mistake was made.
    fn check(&self, event: &TrackEvent) -> Result<(), TrackError> {
        let input = Input {
            theme: event.theme.into(),
            code: &event.code,
            props: &event.props,
            page: None,
            true_ts: event.true_ts,
        };
        input.check().map_err(|violation| {
            self.queue.count_invalid();
            violation.into()
        })
    }

    fn try_enqueue(&self, command: Command) -> Result<(), TrackError> {
        self.queue.push(command).map_err(|refused| match refused {
            PushError::Full => TrackError::QueueFull,
            PushError::Closed => TrackError::Closed,
        })
    }

    fn wait_for(&self, barrier: Barrier, timeout: Duration) -> bool {
        self.queue.submit_barrier(barrier).is_some_and(|id| self.queue.wait(barrier, id, timeout))
    }

    fn join(&self) {
        let thread = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A driver that panicked has stopped; the panic was reported on stderr when it happened.
            let _ = thread.join();
        }
    }
}

#[uniffi::export]
impl Subway {
    /// Opens the SDK. Reads the data directory, which takes milliseconds; connects only when something is to be sent.
    ///
    /// # Errors
    /// If a setting is invalid, the data directory is in use by another client, or it cannot be read or written.
    ///
    /// A damaged store is not an error. Neither is one that must not be changed, because a later version of the SDK
    /// wrote it or its medium is full. Then this run keeps its events in memory and sends them under an install ID of
    /// its own, and the host passes the user's decision as at a first start. See [`Subway::take_notices`].
    #[uniffi::constructor]
    #[allow(clippy::needless_pass_by_value)] // uniffi hands records over by value
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let transport = Arc::new(HttpTransport::new(&config)?);
        Self::open_with(&config, transport, Arc::new(SystemClock::new()))
    }

    /// Records an event: checks it, adds the time and enqueues it. It is on disk shortly after; see
    /// [`Subway::persist_and_wait`].
    ///
    /// # Errors
    /// If it breaks a rule of the wire, comes faster than the disk can take, or the SDK was closed. Except in the last
    /// case the ledger counts it as dropped.
    pub fn track(&self, event: TrackEvent) -> Result<(), TrackError> {
        self.check(&event)?;
        self.try_enqueue(Command::Track(self.now(), event))
    }

    /// Starts a timer. A running timer of this name restarts.
    pub fn timer_start(&self, name: String) {
        self.send(Command::TimerStart(self.now(), name));
    }

    /// Stops a timer and records this event with the property `duration_ms`, measured on the monotonic clock.
    ///
    /// # Errors
    /// As [`Subway::track`]. If no such timer runs, the event is recorded without a duration and a diagnostic says so.
    pub fn timer_end(&self, name: String, event: TrackEvent) -> Result<(), TrackError> {
        self.check(&event)?;
        self.try_enqueue(Command::TimerEnd(self.now(), name, event))
    }

    /// Sets the user of later events.
    ///
    /// # Errors
    /// If the name is empty or longer than the wire allows.
    pub fn identify(&self, user_id: String) -> Result<(), TrackError> {
        core::check_user(&user_id)?;
        self.send(Command::Identify(self.now(), user_id));
        Ok(())
    }

    /// Clears the user; the install stays the same.
    pub fn logout(&self) {
        self.send(Command::Logout(self.now()));
    }

    /// Adds common properties, the text of a JSON object, to every later event. An existing name gets the new value.
    ///
    /// # Errors
    /// If the text is not a JSON object within the limits of properties, or larger than one event. If all common
    /// properties together exceed that, a diagnostic says so and nothing is changed.
    pub fn register(&self, props: String) -> Result<(), TrackError> {
        core::check_common(&props)?;
        self.send(Command::Register(self.now(), props));
        Ok(())
    }

    /// Removes one common property.
    pub fn unregister(&self, name: String) {
        self.send(Command::Unregister(self.now(), name));
    }

    /// Removes all common properties.
    pub fn clear_registered(&self) {
        self.send(Command::ClearRegistered(self.now()));
    }

    /// Applies the user's decision. Denying wipes all stored data, the install ID included.
    pub fn set_consent(&self, consent: Consent) {
        self.send(Command::SetConsent(self.now(), consent.into()));
    }

    /// Sets the current page for later events.
    pub fn set_page(&self, page: Option<Page>) {
        self.send(Command::SetPage(page.map(Into::into)));
    }

    /// Sets the kind of network: `wifi`, `2g` .. `5g`, `none`, `unknown`.
    pub fn set_network(&self, network: String) {
        self.send(Command::SetNetwork(network));
    }

    /// Sets the device information, whose language or screen can change while the app runs.
    pub fn set_device(&self, device: DeviceInfo) {
        self.send(Command::SetDevice(device));
    }

    /// Sets the host app.
    pub fn set_host(&self, host: HostInfo) {
        self.send(Command::SetHost(host));
    }

    /// Reports that the app came to the foreground.
    pub fn foreground(&self) {
        self.send(Command::Foreground(self.now()));
    }

    /// Reports that the app went to the background. Everything is due for upload, as far as the system allows.
    pub fn background(&self) {
        self.send(Command::Background(self.now()));
    }

    /// Makes everything recorded so far due for upload. Retry delays still apply.
    pub fn flush(&self) {
        self.send(Command::Flush(self.now()));
    }

    /// Flushes and waits until every event recorded so far is settled: acknowledged or dropped. Returns `false` after
    /// the timeout; queued events are kept. Events that wait for consent do not count.
    pub fn flush_and_wait(&self, timeout: Duration) -> bool {
        self.flush();
        self.wait_for(Barrier::Settled, timeout)
    }

    /// Waits until everything recorded so far is in the store, and so survives the death of the process. Returns
    /// `false` after the timeout, or if nothing may be stored because the user has not decided yet.
    pub fn persist_and_wait(&self, timeout: Duration) -> bool {
        self.wait_for(Barrier::Persisted, timeout)
    }

    /// Returns the counts of events by outcome.
    pub fn ledger(&self) -> Ledger {
        (&self.queue.ledger()).into()
    }

    /// Returns the install ID: anonymous, generated by the SDK, the same until consent is withdrawn.
    pub fn install_id(&self) -> String {
        self.queue.install().text()
    }

    /// Removes and returns the messages for the developer, oldest first: rejected events, a wrong key, a damaged store.
    pub fn take_notices(&self) -> Vec<String> {
        self.queue.take_diagnostics()
    }

    /// Returns the result of the last upload; `None` before the first.
    pub fn last_upload(&self) -> Option<LastUpload> {
        self.queue.last_upload()
    }

    /// Sends what it can within `timeout`, stores the rest and stops. Returns `true` if everything recorded before the
    /// call is settled. Later calls have no effect.
    pub fn close(&self, timeout: Duration) -> bool {
        let ended = self.flush_and_wait(timeout);
        self.send(Command::Stop);
        if self.queue.wait_stopped(FINAL_COMMIT_TIMEOUT) {
            self.join();
        }
        ended
    }
}

impl Drop for Subway {
    fn drop(&mut self) {
        self.send(Command::Stop);
        self.join();
    }
}

fn open_store(data_dir: Option<&str>) -> Result<(AnyStore, StoreHandle), OpenError> {
    let memory = AnyStore::Memory(MemoryStore::default());
    let Some(dir) = data_dir else { return Ok((memory, StoreHandle::default())) };
    match SqliteStore::open(Path::new(dir)) {
        Ok(store) => {
            let handle = store.handle();
            Ok((AnyStore::Sqlite(Box::new(store)), handle))
        }
        Err(error) if error.falls_back_to_memory() => {
            let handle = StoreHandle::default();
            handle.report(in_memory(&error.to_string()));
            Ok((memory, handle))
        }
        Err(error) => Err(error.into()),
    }
}

fn in_memory(why: &str) -> String {
    format!("{why}; until the app starts again events are kept in memory alone and sent from there")
}
