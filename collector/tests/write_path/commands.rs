//! Commands and their exit codes.

use std::process::{Command, Output};
use std::sync::Arc;

use subway_collector::spool::{DeadLetter, Spool, SpoolError, SpoolSettings, SpoolTask, Tx};

use super::support::{BINARY, Collector, CollectorFixture, batch, events};

fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_data_directory_has_one_collector_at_a_time() {
    let site = CollectorFixture::new("");
    let first = site.start();
    let second = Command::new(BINARY).args(site.serve()).output().unwrap();
    assert_eq!(code(&second), 1);
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another process"), "{second:?}");
    assert!(second.stdout.is_empty());
    first.kill_9();
    assert!(site.start().terminate().success(), "a crash leaves no lock behind");
}

#[test]
fn an_address_in_use_is_a_clear_error() {
    let (one, two) = (CollectorFixture::new(""), CollectorFixture::new(""));
    let collector = one.start();
    let mut args = two.serve();
    let at = args.iter().position(|arg| arg == "127.0.0.1:0").unwrap();
    args[at] = collector.address().to_owned();
    let output = Command::new(BINARY).args(args).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains(collector.address()));
}

#[test]
fn check_says_which_line_and_key() {
    let site = CollectorFixture::new("");
    let path = site.dir.path().join("config.toml");
    let path = path.to_str().unwrap();
    assert_eq!(code(&run(&["check", "--config", path])), 0);
    std::fs::write(path, "[[app]]\nkey = \"a\"\ntimezone = \"UTC\"\n[limits]\nboddy_bytes = 1\n").unwrap();
    for output in [run(&["check", "--config", path]), run(&["serve", "--config", path])] {
        assert_eq!(code(&output), 2);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("line 5") && text.contains("boddy_bytes"), "{text}");
    }
    assert_eq!(code(&run(&["check", "--config", "/there/is/no/file"])), 2);
}

#[test]
fn usage_errors_and_help() {
    for args in [&[][..], &["fly"], &["serve", "--what"], &["ledger"]] {
        let output = run(args);
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage:"));
    }
    let help = run(&["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("dead-letters"));
    assert!(String::from_utf8_lossy(&run(&["--version"]).stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn commands_on_a_directory_without_a_spool_fail_and_make_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for words in [&["ledger"][..], &["dead-letters", "list"], &["dead-letters", "show"], &["dead-letters", "replay"]] {
        let output = Command::new(BINARY).args(words).arg("--data-dir").arg(dir.path()).output().unwrap();
        assert_eq!(code(&output), 1, "{words:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn dead_letters_are_none_at_first_and_an_unknown_sink_is_an_error() {
    let site = CollectorFixture::new("");
    let _collector = site.start();
    assert_eq!(site.command(&["dead-letters", "list"]), "");
    assert_eq!(site.command(&["dead-letters", "show", "--sink", "embedded"]), "");
    assert_eq!(site.command(&["dead-letters", "replay"]), "0 replayed\n");
    let output = Command::new(BINARY)
        .args(["dead-letters", "list", "--sink", "x", "--data-dir"])
        .arg(site.data())
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
}

/// Two stored events.
struct TwoEvents;

impl SpoolTask for TwoEvents {
    fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), SpoolError> {
        tx.append(1, "{}", 2).map(drop)
    }
    fn done(self: Box<Self>, result: Result<(), &SpoolError>) {
        result.unwrap();
    }
    fn bytes(&self) -> u64 {
        2
    }
}

#[test]
fn letters_that_were_dropped_are_named_by_list_and_replay() {
    let dir = tempfile::tempdir().unwrap();
    let settings = SpoolSettings { dead_letter_bytes: 1, ..SpoolSettings::default() };
    let spool = Spool::open(dir.path(), &settings, Arc::default()).unwrap();
    spool.submit(Box::new(TwoEvents)).map_err(|_| "the spool takes no write").unwrap();
    spool.register(&["ch"]).unwrap();
    let letter = |position| DeadLetter {
        sink: "ch".into(),
        position,
        app_key: "demo".into(),
        event_id: "e".into(),
        reason: "no".into(),
        dead_at: 1,
        record: "{}".into(),
    };
    spool.discard_to("ch", 2, vec![letter(1), letter(2)]).unwrap();
    spool.trim().unwrap();
    spool.close();
    let said = |words: &[&str]| {
        let output = Command::new(BINARY).args(words).arg("--data-dir").arg(dir.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let list = said(&["dead-letters", "list"]);
    assert!(list.contains("\"events\":2") && list.contains("dead_letter_bytes"), "{list}");
    let replay = said(&["dead-letters", "replay"]);
    assert!(replay.contains("0 replayed") && replay.contains("ch: 2 were dropped"), "{replay}");
}

#[test]
fn without_a_configuration_a_demo_app_is_served_and_tokens_are_made_but_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let errors = std::fs::File::create(dir.path().join("stderr")).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0"]).current_dir(dir.path());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(errors).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let body = batch(events(1)).to_string();
    let answer = super::support::try_post(&super::support::agent(), &url, "demo", &[], body.as_bytes()).unwrap();
    assert_eq!(answer.counts(), (1, 0, 0));
    let stderr = std::fs::read_to_string(dir.path().join("stderr")).unwrap();
    for (file, path) in [("admin-token", "/v1/admin/ledger"), ("read-token-demo", "/v1/apps/demo/events")] {
        let token = std::fs::read_to_string(dir.path().join("subway-data").join(file)).unwrap();
        let token = token.trim();
        assert!(stderr.contains(file) && !stderr.contains(token), "{stderr}");
        let answer = super::support::agent()
            .get(format!("{url}{path}"))
            .header("authorization", format!("Bearer {token}"))
            .call()
            .unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn only_one_line_goes_to_stdout() {
    let site = CollectorFixture::new("");
    let mut child = Command::new(BINARY)
        .args(site.serve())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_configuration_may_take_secrets_from_the_environment() {
    let site =
        CollectorFixture::new("[[app]]\nkey = \"env\"\ntimezone = \"UTC\"\nread_token = \"${SUBWAY_TEST_TOKEN}\"\n");
    let output = Command::new(BINARY).args(site.serve()).env_remove("SUBWAY_TEST_TOKEN").output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("SUBWAY_TEST_TOKEN"));
    let collector = Collector::spawn(Command::new(BINARY).args(site.serve()).env("SUBWAY_TEST_TOKEN", "from-outside"));
    assert_eq!(collector.get("/v1/apps/env/events", Some("from-outside")).status, 200);
}
