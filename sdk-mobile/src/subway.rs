//! The object that a host holds.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use subway_sdk_core as core;
use subway_sdk_core::{Client, Input, MemoryStore};

use crate::clock::{Clock, SystemClock};
use crate::driver::{AnyStore, Driver, Waiters};
use crate::error::{OpenError, TrackError};
use crate::inbox::{Inbox, Message, Refused, Wait};
use crate::store::{SqliteStore, StoreControl};
use crate::transport::{HttpTransport, Transport};
use crate::types::{Config, Consent, DeviceInfo, HostInfo, LastUpload, Ledger, Page, TrackEvent};
use crate::uploader;

/// How long [`Subway::close`] waits for the last commit. A disk that takes longer hangs.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// One install of the SDK.
///
/// Every method may be called from any thread. None but [`Subway::open`], [`Subway::flush_and_wait`],
/// [`Subway::persist_and_wait`] and [`Subway::close`] waits for disk or network. When the object is dropped, everything
/// is stored first; what was not sent is sent in the next life.
#[derive(uniffi::Object)]
pub struct Subway {
    inbox: Arc<Inbox>,
    clock: Arc<dyn Clock>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

impl Subway {
    /// Opens the SDK with a way to the collector and clocks of the caller's: for tests, and for hosts that share one
    /// [`HttpTransport`] between many installs or have a network stack of their own.
    ///
    /// # Errors
    /// As [`Subway::open`].
    pub fn open_with(
        config: &Config,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, OpenError> {
        let (store, control) = open_store(config.data_dir.as_deref())?;
        let mut entropy = [0; 32];
        if getrandom::fill(&mut entropy).is_err() {
            // Without a source of randomness: what tells processes and moments apart, beside the clocks and the stored salt.
            let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
            entropy[..8].copy_from_slice(&nanos.to_le_bytes());
            entropy[8..12].copy_from_slice(&std::process::id().to_le_bytes());
        }
        let context = config.context();
        let begin = |store| Client::open(store, config.settings.core(), &context.encode(), &entropy, clock.now());
        let client = match begin(store) {
            Err(core::OpenError::Store(error)) if error.is_full() || control.is_unmended() => {
                control.report(in_memory(&error.to_string()));
                begin(AnyStore::Memory(MemoryStore::default()))
            }
            client => client,
        }
        .map_err(|error| OpenError::System(error.to_string()))?;
        let inbox = Arc::new(Inbox::new(client.ledger(), client.install_id()));
        let system = |error: std::io::Error| OpenError::System(format!("no thread could be started: {error}"));
        let uploads = uploader::start(transport, control.clone(), inbox.clone()).map_err(system)?;
        let driver = Driver {
            client,
            context,
            clock: clock.clone(),
            inbox: inbox.clone(),
            uploads,
            store: control,
            waiters: Waiters::default(),
        };
        let thread = std::thread::Builder::new().name("subway".into()).spawn(|| driver.run()).map_err(system)?;
        Ok(Arc::new(Self { inbox, clock, driver: Mutex::new(Some(thread)) }))
    }

    fn tell(&self, message: Message) {
        // After the end there is nothing to do, and an inbox full of calls has left a notice.
        let _ = self.inbox.push(message);
    }

    fn now(&self) -> core::Now {
        self.clock.now()
    }

    /// Checks an event at the call, so that the developer hears of a mistake where it was made.
    fn check(&self, event: &TrackEvent) -> Result<(), TrackError> {
        let input = Input {
            theme: event.theme.into(),
            code: &event.code,
            props: &event.props,
            page: None,
            true_ts: event.true_ts,
        };
        input.check().map_err(|violation| {
            self.inbox.count_invalid();
            violation.into()
        })
    }

    fn hand_over(&self, message: Message) -> Result<(), TrackError> {
        self.inbox.push(message).map_err(|refused| match refused {
            Refused::Full => TrackError::QueueFull,
            Refused::Closed => TrackError::Closed,
        })
    }

    fn wait_for(&self, wait: Wait, timeout: Duration) -> bool {
        self.inbox.ask(wait).is_some_and(|ticket| self.inbox.wait(wait, ticket, timeout))
    }

    fn join(&self) {
        let thread = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A driver that panicked has left; the panic was reported on stderr when it happened.
            let _ = thread.join();
        }
    }
}

#[uniffi::export]
impl Subway {
    /// Opens the SDK. Reads the data directory, which takes milliseconds; connects only when something is to be sent.
    ///
    /// # Errors
    /// If a setting cannot be used, the data directory is in use by another client, or it cannot be read or written. A
    /// damaged store is no error, nor is one that must be left alone (a later version of the SDK has written it, or its
    /// medium is full): then this life keeps its events in memory and sends them under an install ID of its own, and the
    /// host gives the user's decision as at a first start. See [`Subway::take_diagnostics`].
    #[uniffi::constructor]
    #[allow(clippy::needless_pass_by_value)] // uniffi hands records over by value
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let transport = Arc::new(HttpTransport::new(&config)?);
        Self::open_with(&config, transport, Arc::new(SystemClock::new()))
    }

    /// Records an event: checks it, stamps the time and hands it over. It is on disk a moment later; see
    /// [`Subway::persist_and_wait`].
    ///
    /// # Errors
    /// If it breaks a rule of the wire, comes faster than the disk can take, or the SDK was closed. Except in the last
    /// case the ledger counts it as dropped.
    pub fn track(&self, event: TrackEvent) -> Result<(), TrackError> {
        self.check(&event)?;
        self.hand_over(Message::Track(self.now(), event))
    }

    /// Starts a timer; one of this name that runs already begins anew.
    pub fn timer_start(&self, name: String) {
        self.tell(Message::TimerStart(self.now(), name));
    }

    /// Ends a timer and records this event with the property `duration_ms`, measured on the clock that never jumps.
    ///
    /// # Errors
    /// As [`Subway::track`]. If no such timer runs, the event is recorded without a duration and a notice says so.
    pub fn timer_end(&self, name: String, event: TrackEvent) -> Result<(), TrackError> {
        self.check(&event)?;
        self.hand_over(Message::TimerEnd(self.now(), name, event))
    }

    /// Names the user; events from now on carry it.
    ///
    /// # Errors
    /// If the name is empty or longer than the wire allows.
    pub fn identify(&self, user_id: String) -> Result<(), TrackError> {
        core::client::check_user(&user_id)?;
        self.tell(Message::Identify(self.now(), user_id));
        Ok(())
    }

    /// Forgets the user; the install stays the same.
    pub fn logout(&self) {
        self.tell(Message::Logout(self.now()));
    }

    /// Adds common properties, the text of a JSON object, to every event from now on. A name given before gets the new
    /// value.
    ///
    /// # Errors
    /// If the text is not a JSON object within the limits of properties, or larger than an event may be. If all common
    /// properties together exceed that, a notice says so and nothing is changed.
    pub fn register(&self, props: String) -> Result<(), TrackError> {
        core::client::check_common(&props)?;
        self.tell(Message::Register(self.now(), props));
        Ok(())
    }

    /// Removes one common property.
    pub fn unregister(&self, name: String) {
        self.tell(Message::Unregister(self.now(), name));
    }

    /// Removes all common properties.
    pub fn clear_registered(&self) {
        self.tell(Message::ClearRegistered(self.now()));
    }

    /// The user's decision. Denying wipes what is stored, the install ID included.
    pub fn set_consent(&self, consent: Consent) {
        self.tell(Message::SetConsent(self.now(), consent.into()));
    }

    /// The page that events happen on from now on.
    pub fn set_page(&self, page: Option<Page>) {
        self.tell(Message::SetPage(page.map(Into::into)));
    }

    /// The kind of network in use from now on: `wifi`, `2g` .. `5g`, `none`, `unknown`.
    pub fn set_network(&self, network: String) {
        self.tell(Message::SetNetwork(network));
    }

    /// The device as it is from now on: its language or screen may change while the app runs.
    pub fn set_device(&self, device: DeviceInfo) {
        self.tell(Message::SetDevice(device));
    }

    /// The host app as it is from now on.
    pub fn set_host(&self, host: HostInfo) {
        self.tell(Message::SetHost(host));
    }

    /// The app came to the screen.
    pub fn foreground(&self) {
        self.tell(Message::Foreground(self.now()));
    }

    /// The app left the screen: everything is sent as far as the system lets.
    pub fn background(&self) {
        self.tell(Message::Background(self.now()));
    }

    /// Sends everything recorded so far soon, as far as the collector lets.
    pub fn flush(&self) {
        self.tell(Message::Flush(self.now()));
    }

    /// Sends everything recorded so far and waits until each event has ended: acknowledged or dropped. `false` if the time
    /// was not enough; what waits is kept. Events held until the user decides about consent do not count.
    pub fn flush_and_wait(&self, timeout: Duration) -> bool {
        self.flush();
        self.wait_for(Wait::Ended, timeout)
    }

    /// Waits until everything recorded so far is in the store, and so survives the death of the process. `false` if the
    /// time was not enough, or if nothing may be stored because the user has not decided yet.
    pub fn persist_and_wait(&self, timeout: Duration) -> bool {
        self.wait_for(Wait::Persisted, timeout)
    }

    /// Where every event went.
    pub fn ledger(&self) -> Ledger {
        (&self.inbox.ledger()).into()
    }

    /// The install ID: anonymous, made by the SDK, the same until consent is withdrawn.
    pub fn install_id(&self) -> String {
        self.inbox.install().text()
    }

    /// Messages for the developer since the last call, oldest first: why events were refused, that the key is wrong, that
    /// the store was damaged.
    pub fn take_diagnostics(&self) -> Vec<String> {
        self.inbox.take_diagnostics()
    }

    /// What came of the last upload; `None` before the first.
    pub fn last_upload(&self) -> Option<LastUpload> {
        self.inbox.last_upload()
    }

    /// Sends what it can within `timeout`, stores the rest and ends. `true` if everything recorded before the call has
    /// ended. Later calls do nothing.
    pub fn close(&self, timeout: Duration) -> bool {
        let ended = self.flush_and_wait(timeout);
        self.tell(Message::Stop);
        if self.inbox.wait_gone(LAST_COMMIT) {
            self.join();
        }
        ended
    }
}

impl Drop for Subway {
    fn drop(&mut self) {
        self.tell(Message::Stop);
        self.join();
    }
}

fn open_store(data_dir: Option<&str>) -> Result<(AnyStore, StoreControl), OpenError> {
    let memory = AnyStore::Memory(MemoryStore::default());
    let Some(dir) = data_dir else { return Ok((memory, StoreControl::default())) };
    match SqliteStore::open(Path::new(dir)) {
        Ok(store) => {
            let control = store.control();
            Ok((AnyStore::Sqlite(Box::new(store)), control))
        }
        Err(error) if error.leaves_memory() => {
            let control = StoreControl::default();
            control.report(in_memory(&error.to_string()));
            Ok((memory, control))
        }
        Err(error) => Err(error.into()),
    }
}

fn in_memory(why: &str) -> String {
    format!("{why}; until the app starts again events are kept in memory alone and sent from there")
}
