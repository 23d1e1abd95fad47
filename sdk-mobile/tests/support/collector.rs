//! The real collector as a child process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Returns the path of the collector, built if necessary: Cargo offers no other way to get another package's binary.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo).args(["build", "--quiet", "--package", "subway-collector"]).status().unwrap();
        assert!(built.success(), "the collector does not build");
        // The test runs from target/debug/deps.
        std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("subway-collector")
    })
}

/// A running collector, killed when dropped.
pub struct Collector {
    child: Child,
    pub address: String,
}

impl Collector {
    /// Starts it on a free port or, as `again`, on the address of an earlier one. A client's outgoing connection can
    /// hold that port briefly, so binding is retried for a while.
    pub fn start(data_dir: &Path, again: Option<&str>) -> Self {
        let listen = again.map_or("127.0.0.1:0", |address| address.trim_start_matches("http://"));
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match Self::try_start(data_dir, &["--listen", listen]) {
                Ok(collector) => return collector,
                Err(log) => {
                    assert!(again.is_some() && Instant::now() < deadline, "the collector does not start: {log}")
                }
            }
        }
    }

    /// Starts it on a free port with more options.
    pub fn start_with(data_dir: &Path, options: &[&str]) -> Self {
        let options = [&["--listen", "127.0.0.1:0"], options].concat();
        Self::try_start(data_dir, &options).unwrap()
    }

    fn try_start(data_dir: &Path, options: &[&str]) -> Result<Self, String> {
        let log = data_dir.with_extension("log");
        let mut child = Command::new(binary())
            .arg("serve")
            .args(options)
            .arg("--data-dir")
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match line.trim().strip_prefix("listening on ") {
            Some(address) => Ok(Self { child, address: address.to_owned() }),
            None => {
                child.wait().unwrap();
                Err(std::fs::read_to_string(log).unwrap())
            }
        }
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns everything that the collector of a data directory has stored.
pub fn export(data_dir: &Path) -> Vec<Value> {
    let output = Command::new(binary()).args(["export", "--data-dir"]).arg(data_dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns an address without a listener.
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
