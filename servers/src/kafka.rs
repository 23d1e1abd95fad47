//! Kafka: one broker that is its own controller (KRaft), from the jars of its release.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{self, Plan, Process};
use crate::rundir::RunDir;
use crate::{Proxy, Shared, maven, tools};

/// The broker, its command line tools, and a logger.
const ARTIFACTS: &[&str] = &[
    "org.apache.kafka:kafka_2.13:4.3.1",
    "org.apache.kafka:kafka-tools:4.3.1",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.1",
    "org.apache.logging.log4j:log4j-core:2.25.1",
    "org.apache.logging.log4j:log4j-1.2-api:2.25.1",
];
/// From the start to the first answer; 2.4 s when nothing else runs, 6.5 s after a kill.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The longest time that the console consumer waits for the next record, in milliseconds.
const CONSUMER_PATIENCE: &str = "30000";
/// The longest time that one of Kafka's tools may run, in seconds.
const TOOL_LIMIT: &str = "180";
/// Between key and value, and after each record: bytes that no JSON and no ID holds.
const KEY_END: char = '\u{1f}';
const RECORD_END: char = '\u{1e}';
/// An ApiVersions request of version 0, with its length: what a client sends first.
const HELLO: &[u8] = b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff";

/// A Kafka broker on loopback with data of its own. Topics are made at their first use, with one partition.
pub struct Kafka {
    process: Process,
    port: u16,
    java: PathBuf,
    /// The class path: every jar.
    jars: OsString,
    dir: RunDir,
}

impl Kafka {
    /// Fetches Kafka if need be and starts a fresh broker.
    ///
    /// # Errors
    /// What is missing to fetch or run it, and why it does not start.
    pub fn start() -> Result<Self> {
        let (java, jars) = fetch()?;
        process::retry_taken_port(|| Self::start_from(&java, &jars, None))
    }

    /// The same with a proxy in front: clients that begin at [`Proxy::addr`] speak to the broker only through it, those
    /// that begin at [`Kafka::bootstrap`] go past it.
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

    /// The broker that all tests of this process share: each test takes a topic of its own.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn shared() -> Result<&'static Self> {
        static SHARED: Shared<Kafka> = Shared::new();
        crate::shared(&SHARED, Self::start)
    }

    /// `proxied`: the port of a second listener, and the port that it names to clients.
    fn start_from(java: &Path, jars: &OsString, proxied: Option<(u16, u16)>) -> Result<Self> {
        let (dir, port) = (RunDir::new()?, process::free_port()?);
        let settings = dir.join("server.properties");
        fs::write(&settings, properties(&dir, port, process::free_port()?, proxied))?;
        let id = cluster_id();
        let mut format = java_command(java, jars, "kafka.tools.StorageTool");
        format.args(["format", "--standalone", "-t", &id, "-c"]).arg(&settings);
        tools::output(&mut format).context("formatting Kafka's data directory")?;
        let plan = Plan {
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
            limit: START_LIMIT,
        };
        let server = Self { process: Process::new(plan), port, java: java.to_path_buf(), jars: jars.clone(), dir };
        server.restart()?;
        Ok(server)
    }

    /// Where clients begin: `127.0.0.1:PORT`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// It is there already, or the broker does not answer.
    pub fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        let partitions = partitions.to_string();
        let mut command = self.tool("TopicCommand");
        command.args(["--create", "--topic", topic, "--partitions", &partitions, "--replication-factor", "1"]);
        tools::output(&mut command).map(drop)
    }

    /// Writes records, each a key and a value without control characters, and waits until the broker has them.
    ///
    /// # Errors
    /// The broker did not take them.
    pub fn produce(&self, topic: &str, records: &[(&str, &str)]) -> Result<()> {
        self.produce_at(&self.bootstrap(), &[], topic, records)
    }

    /// The same with a client that begins at another address (a proxy's) and with settings of the producer, as
    /// `delivery.timeout.ms=5000`. It is idempotent and waits for all acknowledgements unless they say otherwise.
    ///
    /// # Errors
    /// The broker did not take them, or the client does not know that it did.
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
        // It ends with 0 even when the broker refused records; what it says then is an error.
        let said = fs::read_to_string(log.path())?;
        ensure!(status.success() && !said.contains("ERROR"), "Kafka's console producer ended with {status}:\n{said}");
        Ok(())
    }

    /// How many records the topic has taken, over all partitions; 0 if there is no such topic.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn count(&self, topic: &str) -> Result<u64> {
        let offsets = match tools::output(self.tool("GetOffsetShell").args(["--topic-partitions", topic])) {
            Err(error) if error.to_string().contains("Could not match any topic") => return Ok(0),
            other => other?,
        };
        // Lines of topic:partition:end.
        let ends = offsets.lines().filter_map(|line| line.rsplit(':').next()).filter(|end| !end.is_empty());
        ends.map(|end| end.parse::<u64>().with_context(|| format!("not an offset: {offsets}"))).sum()
    }

    /// All records of a topic as key and value, in the order of each partition; a record without a key has the key `null`.
    ///
    /// # Errors
    /// The broker does not answer, or gives fewer records than the topic has.
    pub fn consume_all(&self, topic: &str) -> Result<Vec<(String, String)>> {
        let count = self.count(topic)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut command = self.tool("consumer.ConsoleConsumer");
        command.args(["--topic", topic, "--from-beginning", "--timeout-ms", CONSUMER_PATIENCE]);
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

    /// One of the release's own tools, told where the broker is.
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
    /// It runs already, or why it does not start.
    pub fn restart(&self) -> Result<()> {
        self.process.start(&|| answers(self.port))
    }

    /// Stops it without ending it, as a machine that hangs: connections are accepted, nothing is answered.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets it go on after [`Kafka::pause`].
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// The ID of its process while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }
}

/// Fetches Kafka; gives the `java` to run it with and its class path.
fn fetch() -> Result<(PathBuf, OsString)> {
    let java = maven::java_home().context("Kafka cannot be had")?.join("bin/java");
    let mut jars = maven::jars("kafka", ARTIFACTS).context("Kafka cannot be had")?.into_os_string();
    jars.push("/*");
    Ok((java, jars))
}

/// One of Kafka's programs. It is ended after a while, also when the process that started it is not there to do so.
fn java_command(java: &Path, jars: &OsString, class: &str) -> Command {
    let mut command = if tools::exists("timeout") {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", TOOL_LIMIT]).arg(java);
        command
    } else {
        Command::new(java)
    };
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars).arg(class);
    command
}

/// True if a broker answers; it does so once it takes records.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(HELLO)?;
        stream.read_exact(&mut [0; 4])
    };
    ask().is_ok()
}

/// 16 random bytes as Kafka writes them: 22 characters of URL-safe base64.
fn cluster_id() -> String {
    use std::hash::{BuildHasher, Hasher};
    let mut random = std::hash::RandomState::new().build_hasher();
    // Digits are base64 too; the last character must leave four bits unset, which A does.
    random.write_u8(1);
    format!("subway{:015}A", random.finish() % 1_000_000_000_000_000)
}

fn properties(dir: &RunDir, port: u16, controller: u16, proxied: Option<(u16, u16)>) -> String {
    // A listener tells its clients the address of the proxy, so that they never go past it.
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
