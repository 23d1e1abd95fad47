//! A collector whose configuration and log are files that the test reads and writes.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::support::{ADMIN, BINARY, Collector, CollectorFixture, READ, eventually};

/// What the configuration of a test begins with: the key `demo`, no signatures.
pub(crate) fn demo(top: &str, app: &str, more: &str) -> String {
    format!(
        "{top}\nadmin_token = \"{ADMIN}\"\n[[app]]\nkey = \"demo\"\ntimezone = \"Asia/Shanghai\"\nread_token = \"{READ}\"\n{app}\n{more}"
    )
}

/// A site with a configuration of its own and a log that can be read.
pub(crate) struct ConfigFixture {
    pub(crate) site: CollectorFixture,
}

impl ConfigFixture {
    pub(crate) fn new(config: &str) -> Self {
        let operated = Self { site: CollectorFixture::new("") };
        operated.configure(config);
        operated
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.site.dir.path().join(name)
    }

    /// Replaces the configuration. The file is renamed into place, as a careful operator does.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.path("config.new"), config).unwrap();
        std::fs::rename(self.path("config.new"), self.path("config.toml")).unwrap();
    }

    pub(crate) fn start(&self) -> Collector {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, environment: &[(&str, &str)]) -> Collector {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new(BINARY);
        command.args(self.site.serve()).env_remove("RUST_LOG").envs(environment.iter().copied());
        Collector::spawn_with_log(&mut command, Stdio::from(log))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Sends SIGHUP and waits until the log says what came of it: the new part of the log.
    pub(crate) fn reload(&self, collector: &Collector) -> String {
        let before = self.log().len();
        collector.signal("-HUP");
        let news = || self.log()[before..].to_owned();
        eventually("the configuration is read again", || {
            let news = news();
            news.contains("has been read again") || news.contains("everything stays as it was")
        });
        news()
    }
}
