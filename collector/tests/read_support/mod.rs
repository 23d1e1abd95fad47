//! A collector of its own for a test: the built binary on a free port and a fresh data directory.
#![allow(dead_code, reason = "each test file uses another part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails the test")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_subway-collector");

pub(crate) struct Collector {
    pub(crate) dir: TempDir,
    config: String,
    process: Child,
    url: String,
    agent: ureq::Agent,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Two apps and an admin, whose tokens are known.
pub(crate) const CONFIG: &str = r#"
admin_token = "admin-token-of-the-test"
[[app]]
key = "demo"
timezone = "Asia/Shanghai"
read_token = "read-token-of-demo-app"
past_days = 25000
[[app]]
key = "rio"
timezone = "America/Sao_Paulo"
read_token = "read-token-of-the-rio-app"
"#;
pub(crate) const ADMIN: &str = "admin-token-of-the-test";
pub(crate) const DEMO: &str = "read-token-of-demo-app";
pub(crate) const RIO: &str = "read-token-of-the-rio-app";

fn launch(config: &Path, data: &Path) -> (Child, String) {
    let mut process = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(config)
        .arg("--data-dir")
        .arg(data)
        .env("RUST_LOG", "warn")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url =
        line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("it did not start: {line:?}")).to_owned();
    (process, url)
}

impl Collector {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("subway.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let (process, url) = launch(&config, &dir.path().join("data"));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { dir, config: config.to_str().unwrap().to_owned(), process, url, agent }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Ends it without a warning, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it politely and waits until it has.
    pub(crate) fn terminate(&mut self) {
        let done = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(done.success());
        assert!(self.process.wait().unwrap().success());
    }

    pub(crate) fn restart(&mut self) {
        let (process, url) = launch(Path::new(&self.config), &self.data());
        (self.process, self.url) = (process, url);
    }

    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().unwrap();
        let text = |value: &ureq::http::HeaderValue| value.to_str().unwrap().to_owned();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            text: response.body_mut().read_to_string().unwrap(),
        }
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> Answer {
        self.get_with(path, &[("authorization", &format!("Bearer {token}"))])
    }

    /// The answer of a question that must succeed.
    pub(crate) fn ask(&self, path: &str, token: &str) -> Value {
        let answer = self.get(path, token);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    /// Sends one batch of which every event must be stored.
    pub(crate) fn send(&self, app: &str, install: u64, events: &[Value]) {
        let sent_at = 1_795_000_000_000_i64;
        let batch = json!({"v": 1, "batch_id": uuid(4, events[0]["seq"].as_u64().unwrap()), "install_id": uuid(1, install), "sent_at": sent_at,
            "host": {"platform": "jd"}, "device": {"os": "iOS"}, "common": {"channel": "qr"}, "events": events});
        let url = format!("{}/v1/events", self.url);
        let mut response = self.agent.post(url).header("x-subway-key", app).send(batch.to_string()).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        let receipt: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(receipt["stored"], events.len(), "{text}");
    }

    pub(crate) fn export(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY).arg("export").arg("--data-dir").arg(self.data()).args(arguments).output().unwrap()
    }

    /// The lines of an export that must succeed.
    pub(crate) fn exported(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.export(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn uuid(kind: u8, number: u64) -> String {
    format!("{kind:08x}-0000-7000-8000-{number:012x}")
}

/// One event, number `n` of the whole test, at `time` (milliseconds since the epoch).
pub(crate) fn event(n: u64, theme: &str, time: i64) -> Value {
    json!({"id": uuid(3, n), "seq": n, "theme": theme, "code": format!("{theme}_code"), "ts": time, "true_ts": time, "props": {"n": n}})
}

/// Milliseconds since the epoch of an RFC 3339 time.
pub(crate) fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}
