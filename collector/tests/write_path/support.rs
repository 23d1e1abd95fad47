//! Test support: runs the real binary, and sends requests to it.
//!
//! Begin with [`CollectorFixture::new`], which writes a configuration, and [`CollectorFixture::start`], which returns a
//! running [`Collector`]. [`batch`] and [`events`] build bodies, [`TestResponse`] reads what comes back, and
//! [`eventually`] waits for a condition without sleeping. Five test targets include this file by path: only the
//! collector's own targets get `CARGO_BIN_EXE_*`, so it cannot be a crate of its own without a path to the binary in
//! every call.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_subway-collector");
pub(crate) const ADMIN: &str = "admin-token-of-the-tests";
pub(crate) const READ: &str = "read-token-of-the-tests";
pub(crate) const SECRET: &str = "a secret of the tests";

/// Time after which a test gives up waiting.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The apps of the tests: `demo`, and `signed`, which demands signatures. `more` is appended.
pub(crate) fn config(more: &str) -> String {
    format!(
        "admin_token = \"{ADMIN}\"\n[[app]]\nkey = \"demo\"\ntimezone = \"Asia/Shanghai\"\nread_token = \"{READ}\"\n\
         [[app]]\nkey = \"signed\"\ntimezone = \"UTC\"\nread_token = \"{READ}\"\nsecret = \"{SECRET}\"\n{more}"
    )
}

pub(crate) struct Collector {
    child: Child,
    // Kept open, so that the collector does not meet a closed pipe.
    _stdout: BufReader<ChildStdout>,
    pub(crate) url: String,
}

pub(crate) struct CollectorFixture {
    pub(crate) dir: TempDir,
}

impl CollectorFixture {
    pub(crate) fn new(more: &str) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(site.dir.path().join("config.toml"), config(more)).unwrap();
        site
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns the arguments of `serve`.
    pub(crate) fn serve(&self) -> Vec<String> {
        let config = self.dir.path().join("config.toml");
        [
            "serve",
            "--config",
            config.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            self.data().to_str().unwrap(),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    pub(crate) fn start(&self) -> Collector {
        Collector::spawn(Command::new(BINARY).args(self.serve()))
    }

    /// Runs a command of the binary on the data directory, and returns its output.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let output = Command::new(BINARY).args(words).arg("--data-dir").arg(self.data()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn ledger(&self) -> Value {
        serde_json::from_str(&self.command(&["ledger"])).unwrap()
    }
}

impl Collector {
    /// Starts a collector, and waits for the line with its URL.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_with_log(command, Stdio::null())
    }

    /// Does the same with the log written to `log`.
    pub(crate) fn spawn_with_log(command: &mut Command, log: Stdio) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url =
            line.strip_prefix("listening on ").unwrap_or_else(|| panic!("no address in {line:?}")).trim().to_owned();
        Self { child, _stdout: stdout, url }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub(crate) fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap().success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.wait()
    }

    pub(crate) fn get(&self, path: &str, token: Option<&str>) -> TestResponse {
        let mut request = agent().get(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        TestResponse::new(request.call().unwrap())
    }

    pub(crate) fn ledger(&self) -> Value {
        self.get("/v1/admin/ledger", Some(ADMIN)).json()
    }

    pub(crate) fn send(&self, batch: &Value) -> TestResponse {
        self.post("demo", &[], batch.to_string().as_bytes())
    }

    pub(crate) fn post(&self, key: &str, headers: &[(&str, &str)], body: &[u8]) -> TestResponse {
        self.try_post(key, headers, body).unwrap()
    }

    pub(crate) fn try_post(
        &self,
        key: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<TestResponse, ureq::Error> {
        try_post(&agent(), &self.url, key, headers, body)
    }

    /// Returns the value of a line of `/metrics`.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let page = self.get("/metrics", None).text;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build().into()
}

pub(crate) fn try_post(
    agent: &ureq::Agent,
    url: &str,
    key: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<TestResponse, ureq::Error> {
    let mut request = agent.post(format!("{url}/v1/events"));
    if !key.is_empty() {
        request = request.header("x-subway-key", key);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send(body).map(TestResponse::new)
}

#[derive(Debug)]
pub(crate) struct TestResponse {
    pub(crate) status: u16,
    headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl TestResponse {
    pub(crate) fn new(mut response: ureq::http::Response<ureq::Body>) -> Self {
        let text = response.body_mut().read_to_string().unwrap();
        Self { status: response.status().as_u16(), headers: response.headers().clone(), text }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the problem, after checking its form.
    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        for field in ["type", "title", "detail", "code"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {problem}");
        }
        assert_eq!(!self.header("retry-after").is_empty(), matches!(self.status, 429 | 503), "{self:?}");
        problem
    }

    pub(crate) fn code(&self) -> String {
        self.problem()["code"].as_str().unwrap().to_owned()
    }

    /// Returns the counts of the receipt: stored, duplicates, rejected.
    pub(crate) fn counts(&self) -> (u64, usize, usize) {
        assert_eq!(self.status, 200, "{self:?}");
        let receipt = self.json();
        let len = |name: &str| receipt[name].as_array().unwrap().len();
        (receipt["stored"].as_u64().unwrap(), len("duplicate"), len("rejected"))
    }
}

/// Returns a UUID that differs from all others of this process.
pub(crate) fn id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("0198c0de-0000-7000-8000-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn event() -> Value {
    json!({"id": id(), "seq": 1, "theme": "view", "code": "page_view", "ts": 1431835511000i64, "props": {"k": "v"}})
}

/// Returns a new batch of `events`.
pub(crate) fn batch(events: Vec<Value>) -> Value {
    json!({"v": 1, "batch_id": id(), "install_id": id(), "sent_at": 1431835512000i64, "events": events})
}

pub(crate) fn events(count: usize) -> Vec<Value> {
    (0..count).map(|_| event()).collect()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Waits until `condition` holds; fails after [`TIMEOUT`].
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < TIMEOUT, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// Checks received = stored + duplicate + rejected, and for every sink stored = delivered + dead + pending + expired.
pub(crate) fn assert_adds_up(ledger: &Value) {
    let n = |value: &Value| value.as_u64().unwrap();
    let rejected: u64 = ledger["rejected"].as_object().unwrap().values().map(n).sum();
    assert_eq!(n(&ledger["received"]), n(&ledger["stored"]) + n(&ledger["duplicate"]) + rejected, "{ledger}");
    let sinks = ledger["sinks"].as_object().unwrap();
    assert!(sinks.contains_key("embedded"), "{ledger}");
    for sink in sinks.values() {
        let expired = sink.get("expired").map_or(0, n);
        let sum = n(&sink["delivered"]) + n(&sink["dead"]) + n(&sink["pending"]) + expired;
        assert_eq!(n(&ledger["stored"]), sum, "{ledger}");
    }
}

/// Returns the sorted IDs of all stored events, as `export` prints them.
pub(crate) fn exported(site: &CollectorFixture) -> Vec<String> {
    let mut ids: Vec<String> = site
        .command(&["export"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

pub(crate) fn fixtures(folder: &str) -> Vec<(String, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/fixtures").join(folder);
    let mut out = Vec::new();
    for file in std::fs::read_dir(path).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        out.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), serde_json::from_str(&text).unwrap()));
    }
    out
}
