//! Which answer a request gets.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use super::body::{Content, FilePart, Source};
use super::index::LAST_SECOND;
use super::request::{Part, Validators, Verdict, elements, encode, find, part, verdict};
use super::socket::Traffic;
use crate::conn::Conn;
use crate::image::manifest::{Entry, Manifest};
use crate::image::path::TreePath;
use crate::master::shared::Shared;
use crate::serve::session::Host as _;
use crate::serve::tree::{Node, ROOT, Tree};
use crate::status::history::History;
use crate::status::{metrics, to_json};

/// All viewers share what is made of the status for at least this long: a slow one keeps few of them in memory.
const LASTS: Duration = Duration::from_secs(1);
/// They share it for at least this many times as long as it took to make: what is said of a large swarm takes
/// at most a twentieth of this thread's time.
const LASTS_TIMES: u32 = 20;
/// The page loads what this server has, asks it for the status, and does nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const PAGE_JS: &str = include_str!("page.js");
const CHART_JS: &str = include_str!("chart.js");
const WORDS_JS: &str = include_str!("words.js");

/// What is served on one port.
pub(super) struct Site {
    pub(super) shared: Rc<Shared>,
    /// Whether the files are, too.
    files: bool,
    history: Rc<RefCell<History>>,
    made: [RefCell<Kept>; 4],
}

/// What is made of the state of the swarm.
#[derive(Clone, Copy)]
enum Made {
    Status,
    Json,
    Metrics,
    Overview,
}

/// Something that was made, and until when it is served again.
type Kept = Option<(Instant, Bytes)>;

/// An answer, but for who waits for it.
struct Reply {
    code: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    source: Source,
}

impl Site {
    pub(super) fn new(shared: Rc<Shared>, files: bool, history: Rc<RefCell<History>>) -> Site {
        Site { shared, files, history, made: Default::default() }
    }

    /// What a request that came on `conn` gets.
    pub(super) fn answer(
        &self,
        conn: Conn,
        traffic: &Rc<Traffic>,
        request: &Request<Incoming>,
    ) -> Response<Content> {
        let answering = traffic.request();
        let reply = match *request.method() {
            Method::GET | Method::HEAD => self.look(conn, request),
            _ => Reply::error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are supported")
                .with(ALLOW, "GET, HEAD"),
        };
        traffic.answers_from_memory(matches!(reply.source, Source::Text(_)));
        let shared = self.shared.clone();
        let content = Content { source: reply.source, shared, conn, _answering: answering };
        let mut response = Response::new(content);
        *response.status_mut() = reply.code;
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_SECURITY_POLICY, POLICY);
        headers.extend(reply.headers);
        response
    }

    fn look(&self, conn: Conn, request: &Request<Incoming>) -> Reply {
        let path = request.uri().path();
        let Some(elements) = elements(path) else {
            return Reply::error(StatusCode::BAD_REQUEST, "invalid path");
        };
        let names: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
        match names[..] {
            [b".xget"] if !path.ends_with('/') => Reply::redirect("/.xget/"),
            [b".xget"] => Reply::text(HTML, PAGE),
            [b".xget", b"page.css"] => Reply::text("text/css; charset=utf-8", STYLE),
            [b".xget", b"page.js"] => Reply::text(SCRIPT, PAGE_JS),
            [b".xget", b"chart.js"] => Reply::text(SCRIPT, CHART_JS),
            [b".xget", b"words.js"] => Reply::text(SCRIPT, WORDS_JS),
            [b".xget", b"overview.json"] => Reply::text(JSON, self.made(Made::Overview)),
            [b".xget", b"status"] => Reply::text(PLAIN_TEXT, self.made(Made::Status)),
            [b".xget", b"status.json"] => Reply::text(JSON, self.made(Made::Json)),
            [b"metrics"] | [b".xget", b"metrics"] => {
                Reply::text(metrics::CONTENT_TYPE, self.made(Made::Metrics))
            }
            [] if !self.files => Reply::redirect("/.xget/"),
            _ if !self.files => Reply::not_found(),
            _ => self.file(conn, request, &elements),
        }
    }

    /// What is kept, or a new one if that is too old.
    fn made(&self, what: Made) -> Bytes {
        let now = Instant::now();
        let kept =
            self.made.get(what as usize).map(|kept| kept.borrow().clone()).unwrap_or_default();
        if let Some((_, made)) = kept.filter(|(until, _)| now < *until) {
            return made;
        }
        let mut engine = self.shared.engine.borrow_mut();
        let hub = engine.hub_mut();
        let made = match what {
            Made::Status => shared(hub.shared_status(now)),
            Made::Json => to_json(&hub.shared_status(now)).into(),
            Made::Metrics => hub.shared_metrics(now).map(shared).unwrap_or_default(),
            Made::Overview => self.history.borrow().to_json(now).into(),
        };
        drop(engine);
        let until = now + LASTS.max(now.elapsed() * LASTS_TIMES);
        if let Some(kept) = self.made.get(what as usize) {
            kept.replace(Some((until, made.clone())));
        }
        made
    }

    fn file(&self, conn: Conn, request: &Request<Incoming>, elements: &[Vec<u8>]) -> Reply {
        let tree = self.shared.engine.borrow().hub().tree().clone();
        let Some(index) = find(&tree, elements) else { return Reply::not_found() };
        let node = Node::Entry(index);
        let Some(entry) = tree.entry(node) else { return Reply::not_found() };
        let slash = request.uri().path().ends_with('/');
        match (tree.is_dir(node), slash) {
            (true, true) => {}
            (true, false) if node == ROOT => {}
            // Made of what was understood: what was sent could be another host's address.
            (true, false) => {
                let path: Vec<String> =
                    elements.iter().map(|name| encode(name).to_string()).collect();
                return Reply::redirect(&format!("/{}/", path.join("/")));
            }
            (false, true) => return Reply::not_found(),
            (false, false) => {
                let etag = etag(tree.manifest(), &entry);
                let now = Validators { etag: &etag, modified: modified(&entry) };
                let range = entry.image_range();
                let bytes = range.end - range.start;
                let reply = match verdict(request.headers(), &now) {
                    Verdict::Failed => {
                        Reply::error(StatusCode::PRECONDITION_FAILED, "the file has changed")
                    }
                    Verdict::NotModified => Reply::empty(StatusCode::NOT_MODIFIED),
                    Verdict::Proceed => {
                        let part = match *request.method() {
                            Method::GET => part(request.headers(), bytes, &now),
                            _ => Part::Whole,
                        };
                        self.part(conn, &tree, index, part, bytes)
                    }
                };
                return reply
                    .with(ETAG, &etag)
                    .with(LAST_MODIFIED, &httpdate::fmt_http_date(now.modified))
                    .with(ACCEPT_RANGES, "bytes");
            }
        }
        let source = Source::Listing { tree, dir: index, next: Some(index) };
        Reply { source, ..Reply::empty(StatusCode::OK) }.with(CONTENT_TYPE, HTML)
    }

    fn part(&self, conn: Conn, tree: &Arc<Tree>, entry: usize, part: Part, bytes: u64) -> Reply {
        let (code, rest) = match part {
            Part::Whole => (StatusCode::OK, 0..bytes),
            Part::Range(range) => (StatusCode::PARTIAL_CONTENT, range),
            Part::Beyond => {
                let code = StatusCode::RANGE_NOT_SATISFIABLE;
                return Reply::error(code, "the range begins after the end of the file")
                    .with(CONTENT_RANGE, &format!("bytes */{bytes}"));
            }
        };
        let path = tree.manifest().listing().path(entry);
        let kind = content_type(path.as_ref().map(TreePath::name).unwrap_or_default());
        let (length, shown) = (rest.end - rest.start, rest.clone());
        let (shared, tree) = (self.shared.clone(), tree.clone());
        let source = Source::File(FilePart { shared, conn, tree, entry, rest, proof: None });
        let reply = Reply { source, ..Reply::empty(code) }
            .with(CONTENT_TYPE, kind)
            .with(CONTENT_LENGTH, &length.to_string())
            .with(CACHE_CONTROL, "no-cache");
        match code {
            StatusCode::PARTIAL_CONTENT => {
                let last = shown.end.saturating_sub(1);
                reply.with(CONTENT_RANGE, &format!("bytes {}-{last}/{bytes}", shown.start))
            }
            _ => reply,
        }
    }
}

/// The same bytes, not copied.
fn shared(text: Arc<str>) -> Bytes {
    Bytes::from_owner(Arc::<[u8]>::from(text))
}

impl Reply {
    fn empty(code: StatusCode) -> Reply {
        Reply { code, headers: Vec::new(), source: Source::Text(None) }
    }

    fn with(mut self, name: HeaderName, value: &str) -> Reply {
        // What is made here is no more than visible ASCII, and fits.
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// Something that is made anew for each who asks.
    fn text(kind: &str, text: impl Into<Bytes>) -> Reply {
        let text = text.into();
        let length = text.len().to_string();
        let source = Source::Text(Some(text).filter(|text| !text.is_empty()));
        Reply { source, ..Reply::empty(StatusCode::OK) }
            .with(CONTENT_TYPE, kind)
            .with(CONTENT_LENGTH, &length)
            .with(CACHE_CONTROL, "no-store")
    }

    fn error(code: StatusCode, why: &str) -> Reply {
        let reason = code.canonical_reason().unwrap_or_default();
        Reply { code, ..Reply::text(PLAIN_TEXT, format!("{} {reason}: {why}\n", code.as_str())) }
    }

    fn not_found() -> Reply {
        Reply::error(StatusCode::NOT_FOUND, "no such file or directory")
    }

    fn redirect(to: &str) -> Reply {
        Reply::error(StatusCode::MOVED_PERMANENTLY, "the URL of a directory ends in a slash")
            .with(LOCATION, to)
    }
}

/// Stands for the bytes of a file: the hashes of the chunks that it lies in, and where it lies in them.
fn etag(manifest: &Manifest, entry: &Entry) -> String {
    let range = entry.image_range();
    let layout = manifest.layout();
    let within = range.start % layout.chunk_bytes().max(1);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&within.to_le_bytes());
    hasher.update(&(range.end - range.start).to_le_bytes());
    for chunk in layout.covering(range) {
        hasher.update(
            manifest.hash(chunk).map(|hash| hash.as_bytes().as_slice()).unwrap_or_default(),
        );
    }
    format!("\"{}\"", hasher.finalize().to_hex().get(..32).unwrap_or_default())
}

/// The last change, as far as an HTTP date can say it.
fn modified(entry: &Entry) -> SystemTime {
    let secs = u64::try_from(entry.mtime.secs).unwrap_or(0).min(LAST_SECOND - 1);
    UNIX_EPOCH + Duration::from_secs(secs)
}

/// Firmware asks for one of these. What a browser would run is given as bytes to keep.
fn content_type(name: &[u8]) -> &'static str {
    let extension = name.rsplit(|&b| b == b'.').next().unwrap_or_default().to_ascii_lowercase();
    match &extension[..] {
        b"efi" => "application/efi",
        b"iso" => "application/vnd.efi-iso",
        b"cfg" | b"conf" | b"ipxe" | b"json" | b"log" | b"md" | b"txt" => PLAIN_TEXT,
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::tests::sample;

    fn etag_of(manifest: &Manifest, path: &str) -> String {
        let path = TreePath::from_manifest(path.as_bytes()).unwrap();
        let index = manifest.listing().find(&path).unwrap();
        etag(manifest, &manifest.listing().entry(index).unwrap())
    }

    #[test]
    fn files_of_different_contents_have_different_tags() {
        let manifest = sample();
        assert_eq!(etag_of(&manifest, "boot.cfg"), etag_of(&sample(), "boot.cfg"));
        assert_ne!(etag_of(&manifest, "boot.cfg"), etag_of(&manifest, "boot/vmlinuz"));
    }

    #[test]
    fn nothing_from_the_tree_is_run_by_a_browser() {
        for name in ["x.html", "x.svg", "x.js", "x.xml", "html", "x.xhtml"] {
            assert_eq!(content_type(name.as_bytes()), "application/octet-stream", "{name}");
        }
        assert_eq!(content_type(b"BOOTX64.EFI"), "application/efi");
    }
}
