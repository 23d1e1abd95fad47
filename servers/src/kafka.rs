//! Kafka: one broker that is its own controller (KRaft), from the jars of its release.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{self, LaunchSpec, Process};
use crate::rundir::RunDir;
use crate::{Proxy, Shared, maven, tools};

/// Broker, command line tools, and a logger.
const ARTIFACTS: &[&str] = &[
    "org.apache.kafka:kafka_2.13:4.3.1",
    "org.apache.kafka:kafka-tools:4.3.1",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.1",
    "org.apache.logging.log4j:log4j-core:2.25.1",
    "org.apache.logging.log4j:log4j-1.2-api:2.25.1",
];
/// Timeout from the start to the first response; 2.4 s when nothing else runs, 6.5 s after a kill.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Time that the console consumer waits for the next record, milliseconds.
const CONSUMER_TIMEOUT_MS: &str = "30000";
/// Time that one of Kafka's tools can run, seconds.
const TOOL_TIMEOUT_S: &str = "180";
/// Separators between key and value, and after each record: bytes that no JSON and no ID contains.
const KEY_END: char = '\u{1f}';
const RECORD_END: char = '\u{1e}';
/// Request ApiVersions of version 0, with its length: the first request of every client.
const API_VERSIONS_REQUEST: &[u8] = b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff";

/// A Kafka broker on loopback with data of its own. A topic is created at its first use, with one partition.
pub struct Kafka {
    process: Process,
    port: u16,
    java: PathBuf,
    /// Class path: every jar.
    jars: OsString,
    dir: RunDir,
}

impl Kafka {
    /// Fetches Kafka if necessary and starts a fresh broker.
    ///
    /// # Errors
    /// If it cannot be fetched or run, or does not start.
    pub fn start() -> Result<Self> {
        let (java, jars) = fetch()?;
        process::retry_taken_port(|| Self::start_from(&java, &jars, None))
    }

    /// Starts a broker with a proxy in front. Clients that bootstrap at [`Proxy::addr`] reach the broker only through
    /// it, those that bootstrap at [`Kafka::bootstrap`] reach it directly.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn start_behind_proxy() -> Result<(Self, Proxy)> {
        let (java, jars) = fetch()?;
        process::retry_taken_port(|| {
            let port = process::free_port()?;
            let proxy = Proxy::kafka(port)?;
            let broker = Self::start_from(&java, &jars, Some((port, proxy.addr().port())))?;
            Ok((broker, proxy))
        })
    }

    /// Returns the broker that all tests of this process share. Each test uses a topic of its own.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn shared() -> Result<&'static Self> {
        static SHARED: Shared<Kafka> = Shared::new();
        crate::shared(&SHARED, Self::start)
    }

    /// `proxied`: port of a second listener, and the port that it advertises to clients.
    fn start_from(java: &Path, jars: &OsString, proxied: Option<(u16, u16)>) -> Result<Self> {
        let (dir, port) = (RunDir::new()?, process::free_port()?);
        let settings = dir.join("server.properties");
        fs::write(&settings, properties(&dir, port, process::free_port()?, proxied))?;
        let id = cluster_id();
        let mut format = java_command(java, jars, "kafka.tools.StorageTool");
        format.args(["format", "--standalone", "-t", &id, "-c"]).arg(&settings);
        tools::output(&mut format).context("formatting Kafka's data directory")?;
        let plan = LaunchSpec {
            name: "Kafka".to_owned(),
            command: vec![
                java.into(),
                "-Xmx384m".into(),
                "-cp".into(),
                jars.clone(),
                "kafka.Kafka".into(),
                settings.into(),
            ],
            env: Vec::new(),
            log: dir.join("log"),
            pidfile: None,
            limit: START_TIMEOUT,
        };
        let server = Self { process: Process::new(plan), port, java: java.to_path_buf(), jars: jars.clone(), dir };
        server.restart()?;
        Ok(server)
    }

    /// Returns the bootstrap address: `127.0.0.1:PORT`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// If it exists, or the broker does not respond.
    pub fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        let partitions = partitions.to_string();
        let mut command = self.tool("TopicCommand");
        command.args(["--create", "--topic", topic, "--partitions", &partitions, "--replication-factor", "1"]);
        tools::output(&mut command).map(drop)
    }

    /// Writes records, each a key and a value without control characters, and waits for the acknowledgement.
    ///
    /// # Errors
    /// If the broker did not accept them.
    pub fn produce(&self, topic: &str, records: &[(&str, &str)]) -> Result<()> {
        self.produce_at(&self.bootstrap(), &[], topic, records)
    }

    /// Writes records with another bootstrap address (a proxy's) and with settings of the producer, such as
    /// `delivery.timeout.ms=5000`. It is idempotent and waits for all acknowledgements unless the settings differ.
    ///
    /// # Errors
    /// If the broker did not accept them, or the client does not know that it did.
    pub fn produce_at(&self, bootstrap: &str, settings: &[&str], topic: &str, records: &[(&str, &str)]) -> Result<()> {
        let mut command = self.tool_at("ConsoleProducer", bootstrap);
        command.args(["--topic", topic, "--reader-property", "parse.key=true", "--reader-property"]);
        command.arg(format!("key.separator={KEY_END}"));
        for setting in ["acks=all"].iter().chain(settings) {
            command.args(["--command-property", setting]);
        }
        let log = tempfile::NamedTempFile::new_in(self.dir.path())?;
        let output = fs::File::options().append(true).open(log.path())?;
        let mut producer = command
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start Kafka's console producer")?;
        let mut input = producer.stdin.take().context("no pipe to Kafka's console producer")?;
        for (key, value) in records {
            writeln!(input, "{key}{KEY_END}{value}")?;
        }
        drop(input);
        let status = producer.wait()?;
        // It exits with 0 even if the broker refused records, and then prints an error.
        let said = fs::read_to_string(log.path())?;
        ensure!(status.success() && !said.contains("ERROR"), "Kafka's console producer ended with {status}:\n{said}");
        Ok(())
    }

    /// Returns the number of records of the topic, over all partitions; 0 if there is no such topic.
    ///
    /// # Errors
    /// If the broker does not respond.
    pub fn count(&self, topic: &str) -> Result<u64> {
        let offsets = match tools::output(self.tool("GetOffsetShell").args(["--topic-partitions", topic])) {
            Err(error) if error.to_string().contains("Could not match any topic") => return Ok(0),
            other => other?,
        };
        // Lines of topic:partition:end.
        let ends = offsets.lines().filter_map(|line| line.rsplit(':').next()).filter(|end| !end.is_empty());
        ends.map(|end| end.parse::<u64>().with_context(|| format!("not an offset: {offsets}"))).sum()
    }

    /// Returns all records of a topic as key and value, in the order of each partition. A record without a key has the
    /// key `null`.
    ///
    /// # Errors
    /// If the broker does not respond, or returns fewer records than the topic has.
    pub fn consume_all(&self, topic: &str) -> Result<Vec<(String, String)>> {
        let count = self.count(topic)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut command = self.tool("consumer.ConsoleConsumer");
        command.args(["--topic", topic, "--from-beginning", "--timeout-ms", CONSUMER_TIMEOUT_MS]);
        command.args(["--max-messages", &count.to_string()]);
        for property in
            ["print.key=true".to_owned(), format!("key.separator={KEY_END}"), format!("line.separator={RECORD_END}")]
        {
            command.args(["--formatter-property", &property]);
        }
        let text = tools::output(&mut command)?;
        let records: Vec<(String, String)> = text
            .split_terminator(RECORD_END)
            .filter_map(|record| record.split_once(KEY_END))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        ensure!(records.len() as u64 == count, "read {} of {count} records of {topic}", records.len());
        Ok(records)
    }

    /// Returns one of the release's own tools, with the broker's address.
    fn tool(&self, class: &str) -> Command {
        self.tool_at(class, &self.bootstrap())
    }

    fn tool_at(&self, class: &str, bootstrap: &str) -> Command {
        let mut command = java_command(&self.java, &self.jars, &format!("org.apache.kafka.tools.{class}"));
        command.args(["--bootstrap-server", bootstrap]);
        command
    }

    /// Kills it as `kill -9` does; the data stays.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again after [`Kafka::kill`], on the same port and the same data.
    ///
    /// # Errors
    /// If it is running, or does not start.
    pub fn restart(&self) -> Result<()> {
        self.process.start(&|| is_ready(self.port))
    }

    /// Pauses the process, like a machine that hangs: connections are accepted, but there is no response.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Resumes it after [`Kafka::pause`].
    ///
    /// # Errors
    /// If it is not running.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Returns the ID of its process while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }
}

/// Fetches Kafka. Returns the `java` to run it with and its class path.
fn fetch() -> Result<(PathBuf, OsString)> {
    let java = maven::java_home().context("Kafka cannot be had")?.join("bin/java");
    let mut jars = maven::jars("kafka", ARTIFACTS).context("Kafka cannot be had")?.into_os_string();
    jars.push("/*");
    Ok((java, jars))
}

/// Returns one of Kafka's programs. It ends after a timeout, even if the process that started it is gone.
fn java_command(java: &Path, jars: &OsString, class: &str) -> Command {
    let mut command = if tools::exists("timeout") {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", TOOL_TIMEOUT_S]).arg(java);
        command
    } else {
        Command::new(java)
    };
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars).arg(class);
    command
}

/// Returns whether a broker responds, which it does once it accepts records.
fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(API_VERSIONS_REQUEST)?;
        stream.read_exact(&mut [0; 4])
    };
    ask().is_ok()
}

/// Returns 16 random bytes as Kafka writes them: 22 characters of URL-safe base64.
fn cluster_id() -> String {
    use std::hash::{BuildHasher, Hasher};
    let mut random = std::hash::RandomState::new().build_hasher();
    // Digits are base64 too; the last character must leave four bits unset, which A does.
    random.write_u8(1);
    format!("subway{:015}A", random.finish() % 1_000_000_000_000_000)
}

fn properties(dir: &RunDir, port: u16, controller: u16, proxied: Option<(u16, u16)>) -> String {
    // A listener advertises the address of the proxy, so that clients never bypass it.
    let (mut listener, mut named) = (String::new(), String::new());
    if let Some((port, proxy)) = proxied {
        listener = format!(",PROXIED://127.0.0.1:{port}");
        named = format!(",PROXIED://127.0.0.1:{proxy}");
    }
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listener}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}{named}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={}\n\
         default.replication.factor=1\n\
         min.insync.replicas=1\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         broker.heartbeat.interval.ms=500\n\
         broker.session.timeout.ms=3000\n",
        dir.join("data").display()
    )
}
