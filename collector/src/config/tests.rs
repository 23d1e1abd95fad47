use super::*;

const APP: &str = "[[app]]\nkey = \"demo\"\ntimezone = \"Asia/Shanghai\"\n";

fn refusal(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn a_full_file_is_read() {
    let text = "listen = \"[::1]:9\"\ndata_dir = \"/x\"\nadmin_token = \"a-token\"\n[[app]]\nkey = \"a.b-c_1\"\ntimezone = \"Europe/Berlin\"\n\
        read_token = \"r\"\nsecret = \"s\"\n[limits]\nbody_bytes = 7\nclock_tolerance_ms = 0\nconnections = 3\n[[sink]]\nname = \"embedded\"\nkind = \"sqlite\"\n";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.listen, ["[::1]:9".parse().unwrap()]);
    assert_eq!(config.admin_token.unwrap().expose(), "a-token");
    assert_eq!(
        (config.limits.wire.body_bytes, config.limits.wire.clock_tolerance_ms, config.limits.connections),
        (7, 0, 3)
    );
    assert_eq!(config.apps[0].key, "a.b-c_1");
    assert_eq!(config.apps[0].timezone.iana_name(), Some("Europe/Berlin"));
    assert!(config.sinks.is_empty());
}

#[test]
fn the_smallest_file_is_one_app() {
    let config = Config::parse(APP).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.listen, Config::embedded().listen);
    assert_eq!(config.data_dir, Config::embedded().data_dir);
}

#[test]
fn every_limit_has_a_key_and_is_put_in_its_own_place() {
    for (at, (key, default)) in Limits::default().entries().into_iter().enumerate() {
        let value = if [0, 8].contains(&default) { default + 1 } else { default - 1 };
        // Or it would change with `connections`.
        let per_ip = if key == "connections" { "connections_per_ip = 5000\n" } else { "" };
        let config = Config::parse(&format!("{APP}[limits]\n{key} = {value}\n{per_ip}")).unwrap();
        let entries = config.limits.entries();
        assert_eq!(entries[at], (key, value));
        let changed = entries.iter().zip(Limits::default().entries()).filter(|(new, old)| *new != old).count();
        assert_eq!(changed, 1, "{key}");
    }
}

#[test]
fn one_address_may_have_half_of_the_connections_unless_the_file_says_otherwise() {
    for (limits, per_ip) in [
        ("", 5000),
        ("connections = 20000\n", 10_000),
        ("connections = 3\n", 2),
        ("connections = 1\n", 1),
        ("connections = 20000\nconnections_per_ip = 7\n", 7),
        ("connections_per_ip = 0\n", 0),
    ] {
        let config = Config::parse(&format!("{APP}[limits]\n{limits}")).unwrap();
        assert_eq!(config.limits.connections_per_ip, per_ip, "{limits}");
    }
    assert_eq!(Limits::default().connections_per_ip, 5000);
}

#[test]
fn errors_name_line_and_key() {
    for (text, line, words) in [
        ("lisen = \"x\"\n".to_owned() + APP, 1, "lisen"),
        (format!("{APP}tz = 1\n"), 4, "tz"),
        (format!("{APP}[limits]\nbody = 1\n"), 5, "body"),
        (format!("{APP}[limits]\nbody_bytes = \"1\"\n"), 5, "body_bytes"),
        (format!("{APP}[limits]\nbody_bytes = 0\n"), 5, "limits.body_bytes"),
        (format!("{APP}[limits]\ndepth = -1\n"), 5, "depth"),
        (format!("{APP}[limits]\nin_flight_bytes = 9000000\n"), 5, "limits.in_flight_bytes"),
        (format!("{APP}{APP}"), 5, "app.key"),
        ("listen = \"localhost\"\n".to_owned() + APP, 1, "listen"),
        ("listen = 1\n".to_owned() + APP, 1, "listen"),
        ("[[app]]\nkey = \"a b\"\ntimezone = \"UTC\"".into(), 2, "app.key"),
        ("[[app]]\nkey = \"../x\"\ntimezone = \"UTC\"".into(), 2, "app.key"),
        ("[[app]]\nkey = \"a\"\ntimezone = \"Mars/Base\"".into(), 3, "app.timezone"),
        ("[[app]]\nkey = \"a\"\n".into(), 1, "timezone"),
        (format!("{APP}read_token = \"a b\"\n"), 4, "app.read_token"),
        (format!("{APP}secret = \"\"\n"), 4, "app.secret"),
        (format!("{APP}secret = \"${{SUBWAY_SURELY_NOT_SET}}\"\n"), 4, "SUBWAY_SURELY_NOT_SET"),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"clickhouse\"\n"), 4, "url"),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"clickhouse\"\nurl = \"ftp://h\"\n"), 4, "sink.url"),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"clickhouse\"\nurl = \"http://u:p@h\"\n"), 4, "sink.url"),
        (
            format!("{APP}[[sink]]\nname = \"x\"\nkind = \"elasticsearch\"\nurl = \"http://h\"\nbatch_events = 0\n"),
            4,
            "sink.batch_events",
        ),
        (
            format!(
                "{APP}[[sink]]\nname = \"x\"\nkind = \"elasticsearch\"\nurl = \"http://h\"\nwhen_full = \"drop\"\n"
            ),
            4,
            "sink.when_full",
        ),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"kafka\"\nurl = \"h\"\n"), 4, "sink.url"),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"kafka\"\nurl = \"h:1\"\ncolour = 1\n"), 4, "colour"),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"kafka\"\nurl = \"h:1\"\ntopic = \"a b\"\n"), 4, "sink.topic"),
        (
            format!("{APP}[[sink]]\nname = \"x\"\nkind = \"kafka\"\nurl = \"h:1\"\npartitions = 0\n"),
            4,
            "sink.partitions",
        ),
        (
            format!("{APP}[[sink]]\nname = \"x\"\nkind = \"kafka\"\nurl = \"h:1\"\nmessage_bytes = 1000\n"),
            4,
            "sink.message_bytes",
        ),
        (
            format!("{APP}[[sink]]\nname = \"x\"\nkind = \"kafka\"\nurl = \"h:1\"\nqueue_bytes = 1\n"),
            4,
            "sink.queue_bytes",
        ),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"kafka\"\nurl = \"h:1\"\ncompression = \"zstd\"\n"), 4, "zstd"),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"kafka\"\nurl = \"h:1\"\nuser = \"u\"\n"), 4, "sink.user"),
        (format!("{APP}[[sink]]\nname = \"a b\"\nkind = \"kafka\"\nurl = \"h:1\"\n"), 4, "sink.name"),
        (format!("{APP}[query]\nsource = \"x\"\n"), 5, "query.source"),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"oracle\"\n"), 4, "sink.kind"),
        (format!("{APP}[[sink]]\nname = \"x\"\nkind = \"sqlite\"\n"), 4, "embedded"),
        (format!("{APP}[[sink]]\nname = \"embedded\"\nkind = \"sqlite\"\nurl = \"x\"\n"), 4, "sink.url"),
        (format!("{APP}[[sink]]\nkind = \"sqlite\"\n"), 4, "sink.name"),
        (format!("{APP}x = [\n"), 4, ""),
    ] {
        let refusal = refusal(&text);
        assert!(
            refusal.contains(&format!("line {line}"))
                || refusal.contains(&format!("line {}", line + 1)) && words.is_empty(),
            "{text}\n{refusal}"
        );
        assert!(refusal.contains(words), "{text}\n{refusal}");
    }
}

#[test]
fn a_file_without_an_app_is_refused() {
    assert!(refusal("listen = \"127.0.0.1:1\"").contains("[[app]]"));
}

#[test]
fn the_environment_is_put_in() {
    // Cargo sets this variable for every test.
    let config = Config::parse(&format!("data_dir = \"/x/${{CARGO_PKG_NAME}}\"\n{APP}")).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/x/subway-collector"));
}

#[test]
fn no_error_shows_a_secret() {
    let refusal = refusal(&format!("{APP}read_token = \"hush hush\"\n"));
    assert!(!refusal.contains("hush"), "{refusal}");
}

#[test]
fn a_host_may_be_named() {
    let config = Config::parse(&format!("listen = \"localhost:8123\"\n{APP}")).unwrap();
    assert!(config.listen.iter().all(|address| address.ip().is_loopback() && address.port() == 8123));
    assert!(!config.listen.is_empty());
    // A name that by its definition (RFC 2606) never has an address.
    let refusal = refusal(&format!("listen = \"no-such-host.invalid:1\"\n{APP}"));
    assert!(refusal.contains("line 1") && refusal.contains("must be a host and a port"), "{refusal}");
}

#[test]
fn what_this_build_cannot_do_for_kafka_is_said_at_once() {
    for line in ["tls = true", "tls_ca = \"/ca.pem\"", "sasl_mechanism = \"SCRAM-SHA-512\""] {
        let text = format!("{APP}[[sink]]\nname = \"x\"\nkind = \"kafka\"\nurl = \"h:1\"\n{line}\n");
        let refusal = Config::parse(&text).err().map(|error| error.to_string());
        let refused = refusal.as_ref().is_some_and(|error| error.contains("kafka-ssl"));
        assert_eq!(refused, !cfg!(feature = "kafka-ssl"), "{line}: {refusal:?}");
    }
}

#[test]
fn what_clickhouse_could_not_use_is_refused_by_its_key() {
    let with =
        |lines: &str| format!("{APP}[[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"http://h:1\"\n{lines}\n");
    for (lines, key) in [
        ("database = \"a b\"", "sink.database"),
        ("table = \"x; DROP TABLE y\"", "sink.table"),
        ("dwd_prefix = \"\"", "sink.dwd_prefix"),
        ("cluster = \"it's\"", "sink.cluster"),
        ("replicated = true\nzookeeper_path = \"/same/for/all\"", "sink.zookeeper_path"),
        ("replica_name = \"r\"", "sink.replica_name"),
        ("insert_quorum = 2", "sink.insert_quorum"),
        ("ttl_days = 20001", "sink.ttl_days"),
        ("tls_ca = \"/ca.pem\"", "sink.tls_ca"),
        ("compression = \"gzip\"", "gzip"),
        ("ttl = 3", "ttl"),
    ] {
        let refusal = refusal(&with(lines));
        assert!(refusal.contains(key), "{lines}: {refusal}");
    }
    let parse_all = "database = \"d\"\ntable = \"t\"\ndwd_prefix = \"v_\"\nmanage_schema = false\nttl_days = 0\nprops_json = true\ncluster = \"{cluster}\"\n\
        replicated = true\nzookeeper_path = \"/x/{uuid}\"\nreplica_name = \"{replica}\"\ninsert_quorum = 2\ncompression = \"none\"\nuser = \"u\"\n\
        password = \"p\"";
    assert!(Config::parse(&with(parse_all)).is_ok());
}

#[test]
fn without_the_embedded_store_questions_go_to_the_one_store_that_answers() {
    let kafka = "[[sink]]\nname = \"k\"\nkind = \"kafka\"\nurl = \"h:1\"\n";
    let ch = |name: &str| format!("[[sink]]\nname = \"{name}\"\nkind = \"clickhouse\"\nurl = \"http://h:1\"\n");
    let off = |rest: &str| Config::parse(&format!("{APP}[embedded]\nenabled = false\n{rest}"));
    assert_eq!(off(kafka).unwrap().query_source, None);
    assert_eq!(off(&format!("{kafka}{}", ch("a"))).unwrap().query_source.as_deref(), Some("a"));
    let two = format!("{}{}", ch("a"), ch("b"));
    assert!(off(&two).unwrap_err().to_string().contains("query.source"));
    assert_eq!(off(&format!("[query]\nsource = \"b\"\n{two}")).unwrap().query_source.as_deref(), Some("b"));
    let embedded = off(&format!("[query]\nsource = \"embedded\"\n{two}")).unwrap_err().to_string();
    assert!(embedded.contains("line 7") && embedded.contains("is off"), "{embedded}");
    assert_eq!(Config::parse(APP).unwrap().query_source.as_deref(), Some(EMBEDDED));
    assert_eq!(Config::parse(APP).unwrap().embedded, Embedded::default());
}

#[test]
fn what_the_embedded_store_cannot_be_is_refused_by_its_key() {
    for (line, key) in
        [("enabled = false", "embedded.enabled"), ("enabled = 1", "enabled"), ("retention = 1", "retention")]
    {
        let refusal = refusal(&format!("{APP}[embedded]\n{line}\n"));
        assert!(refusal.contains("line 5") && refusal.contains(key), "{line}: {refusal}");
    }
}
