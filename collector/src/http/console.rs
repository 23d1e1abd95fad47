//! Serves the console: a page with its scripts and styles, compiled into the binary. It needs nothing from the network.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::{AppState, problem};

/// Allows only the files of the console itself, and forbids framing it.
const POLICY: &str = "default-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
    object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct File {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal $kind:expr),* $(,)?) => {
        &[$(File { name: $name, kind: $kind, bytes: include_bytes!(concat!("../../console/", $name)) }),*]
    };
}

/// Files of `console/` that a browser loads. A test compares the list with the folder.
const FILES: &[File] = files![
    "api.js" SCRIPT,
    "app.js" SCRIPT,
    "charts.js" SCRIPT,
    "dom.js" SCRIPT,
    "events.js" SCRIPT,
    "icon.svg" "image/svg+xml",
    "index.html" "text/html; charset=utf-8",
    "json.js" SCRIPT,
    "state.js" SCRIPT,
    "style.css" "text/css; charset=utf-8",
    "tiles.js" SCRIPT,
    "time.js" SCRIPT,
    "vendor/chart.LICENSE.md" "text/plain; charset=utf-8",
    "vendor/chart.umd.min.js" SCRIPT,
    "view.js" SCRIPT,
];

/// Entity tag of each of [`FILES`], from its content.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| FILES.iter().map(|file| tag(file.bytes)).collect());

fn tag(bytes: &[u8]) -> HeaderValue {
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(bytes)[..12]));
    HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Returns the routes of the console.
pub(super) fn routes() -> Router<Arc<AppState>> {
    Router::new().route("/", get(page)).route("/console/{*name}", get(file))
}

async fn page(headers: HeaderMap, uri: Uri) -> Response {
    serve("index.html", &headers, uri).await
}

async fn file(path: Result<Path<String>, PathRejection>, headers: HeaderMap, uri: Uri) -> Response {
    serve(&path.map(|Path(name)| name).unwrap_or_default(), &headers, uri).await
}

async fn serve(name: &str, headers: &HeaderMap, uri: Uri) -> Response {
    let Some((file, tag)) = FILES.iter().zip(TAGS.iter()).find(|(file, _)| file.name == name) else {
        return problem::not_found(uri).await.into_response();
    };
    let unchanged = headers.get(header::IF_NONE_MATCH).is_some_and(|known| matches(known, tag));
    let mut response = if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { file.bytes.into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    headers.insert(header::ETAG, tag.clone());
    // Revalidated on every load, answered with 304: a page of a new collector never runs an old script.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Returns whether the value of `If-None-Match` names `tag` (RFC 9110 section 13.1.2: a list, weak comparison, or `*`).
fn matches(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else { return false };
    known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_console_is_served() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
        let mut found = Vec::new();
        for folder in ["", "vendor"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                if path.is_file() && !["README.md", "package.json", "package-lock.json"].contains(&name.as_str()) {
                    found.push(name);
                }
            }
        }
        found.sort();
        let served: Vec<&str> = FILES.iter().map(|file| file.name).collect();
        assert_eq!(served, found);
    }

    #[test]
    fn tags_are_compared_as_http_says() {
        let tag = tag(b"x");
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        let quoted = tag.to_str().unwrap();
        for known in [quoted.to_owned(), format!("W/{quoted}"), format!("\"a\", {quoted}"), "*".to_owned()] {
            assert!(matches(&value(&known), &tag), "{known}");
        }
        assert!(!matches(&value("\"a\""), &tag));
    }
}
