//! A collector that speaks HTTPS itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::files::{ConfigFixture, demo};
use super::support::{BINARY, batch, events, eventually};

/// A certificate for localhost in `cert.pem` and `key.pem`.
fn certify(site: &ConfigFixture) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(site.path("cert.pem"), cert.pem()).unwrap();
    std::fs::write(site.path("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

fn tls(site: &ConfigFixture, more: &str) -> String {
    let path = |name| site.path(name).display().to_string();
    demo("", "", &format!("[tls]\ncert = \"{}\"\nkey = \"{}\"\n{more}", path("cert.pem"), path("key.pem")))
}

fn secured(more: &str) -> (ConfigFixture, CertificateDer<'static>) {
    let site = ConfigFixture::new("");
    let certificate = certify(&site);
    site.configure(&tls(&site, more));
    (site, certificate)
}

/// A connection to `url` of a client that trusts this certificate only, and speaks these protocols.
fn connect(
    url: &str,
    certificate: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let mut socket = TcpStream::connect(url.strip_prefix("https://").unwrap())?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut session = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    session.complete_io(&mut socket)?;
    Ok(StreamOwned::new(session, socket))
}

/// Sends one event; the answer.
fn send(url: &str, certificate: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut stream = connect(url, certificate, &[b"h2", b"http/1.1"])?;
    let body = batch(events(1)).to_string();
    let length = body.len();
    write!(
        stream,
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nx-subway-key: demo\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    // The end of the connection may come without the farewell of TLS; what was answered is whole all the same.
    let _ = stream.read_to_string(&mut answer);
    Ok(answer)
}

#[test]
fn events_are_taken_over_https() {
    let (site, certificate) = secured("");
    let collector = site.start();
    assert!(collector.url.starts_with("https://127.0.0.1:"), "{}", collector.url);
    let answer = send(&collector.url, &certificate).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"stored\":1"), "{answer}");
    let stream = connect(&collector.url, &certificate, &[b"h2", b"http/1.1"]).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]), "HTTP/1.1 is agreed on");
}

#[test]
fn plain_http_and_other_certificates_get_nothing() {
    let (site, _) = secured("");
    let collector = site.start();
    let stranger = generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.der().clone();
    assert!(send(&collector.url, &stranger).is_err(), "the client does not believe it");
    let mut stream = TcpStream::connect(collector.url.strip_prefix("https://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}

#[test]
fn a_handshake_that_never_ends_is_cut_off() {
    let (site, certificate) = secured("[limits]\ntls_handshake_timeout_ms = 50\n");
    let collector = site.start();
    let mut silent = TcpStream::connect(collector.url.strip_prefix("https://").unwrap()).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0, "closed without a word");
    // Patience again, so that the next handshake need not be fast.
    site.configure(&tls(&site, ""));
    site.reload(&collector);
    let mut stream = connect(&collector.url, &certificate, &[]).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    let _ = stream.read_to_string(&mut page);
    assert!(page.contains("subway_tls_handshake_failures_total 1\n"), "{page}");
}

#[test]
fn a_new_certificate_is_taken_at_a_reload_and_a_broken_one_is_not() {
    let (site, old) = secured("");
    let collector = site.start();
    let mut before = connect(&collector.url, &old, &[]).unwrap();
    let new = certify(&site);
    assert!(send(&collector.url, &new).is_err(), "not before the reload");
    site.reload(&collector);
    assert!(send(&collector.url, &new).unwrap().starts_with("HTTP/1.1 200 "));
    assert!(send(&collector.url, &old).is_err());
    write!(before, "GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = before.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "a connection that was there goes on: {answer}");
    std::fs::write(site.path("cert.pem"), "not a certificate").unwrap();
    let log = site.reload(&collector);
    assert!(log.contains("tls.cert") && log.contains("everything stays as it was"), "{log}");
    assert!(send(&collector.url, &new).unwrap().starts_with("HTTP/1.1 200 "));
}

#[test]
fn unusable_files_are_named_by_check() {
    let (site, _) = secured("");
    let check = || Command::new(BINARY).args(["check", "--config"]).arg(site.path("config.toml")).output().unwrap();
    assert!(check().status.success());
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (file, text, key) in [
        ("key.pem", other.signing_key.serialize_pem(), "tls.key"),
        ("key.pem", "no key".to_owned(), "tls.key"),
        ("cert.pem", String::new(), "tls.cert"),
    ] {
        std::fs::write(site.path(file), text).unwrap();
        let output = check();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(key) && said.contains("line "), "{said}");
    }
}

#[test]
fn a_tls_collector_drains_like_any_other() {
    let (site, certificate) = secured("");
    let collector = site.start();
    let idle = connect(&collector.url, &certificate, &[]).unwrap();
    let url = collector.url.clone();
    assert!(collector.terminate().success());
    drop(idle);
    eventually("nobody listens any more", || TcpStream::connect(url.strip_prefix("https://").unwrap()).is_err());
}
