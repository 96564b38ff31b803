//! What does an open watch send, and when?
//!
//! The stream reads changes from the store's history, so a slow watcher costs no memory of its own. Sending is work like
//! any other: under overload events arrive late, which is what makes DNS stale.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Model;
use super::answer::{Answer, Failure, stream as streaming};
use super::costs;
use super::object::Object;
use super::resources::Kind;
use super::store::{Change, Event};
use super::table;
use super::target::{Options, Selector};
use crate::clock;

/// A real server sends a bookmark about once a minute; a demo of one minute needs them more often.
const BOOKMARK_EVERY: Duration = Duration::from_secs(5);
/// Without `timeoutSeconds` a real server ends a watch after 30 to 60 minutes.
const DURATION_DEFAULT: Duration = Duration::from_secs(1_800);

struct Watch {
    model: Arc<Model>,
    kind: Kind,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    /// Changes up to this version have been sent.
    cursor: u64,
    /// Objects to send as `ADDED` first.
    initial: Vec<Arc<Object>>,
    latest: watch::Receiver<u64>,
    ends: Instant,
    /// When the next bookmark is due, for clients that want them.
    bookmark: Option<Instant>,
    over: bool,
}

/// How objects are shown.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Object,
    Table,
}

/// Answers a watch request. The head goes out at once, whether or not there is anything to say.
pub(crate) async fn watch(
    model: &Arc<Model>,
    kind: Kind,
    namespace: Option<String>,
    options: Options,
    form: Form,
) -> Result<Answer, Failure> {
    let latest = model.store.subscribe();
    let (cursor, initial) = match options.resource_version {
        Some(version) if version > 0 => {
            model
                .store
                .events_after(kind, version)
                .map_err(|expired| Failure::expired(expired.to_string()))?;
            (version, Vec::new())
        }
        _ => {
            let page = model.store.page(kind, namespace.as_deref(), None, usize::MAX);
            (page.version, page.objects)
        }
    };
    model.capacity.run(costs::WATCH_START).await;
    let lasts = options.timeout_seconds.map_or(DURATION_DEFAULT, Duration::from_secs);
    let now = Instant::now();
    let watch = Watch {
        model: Arc::clone(model),
        kind,
        namespace,
        selector: options.selector,
        form,
        cursor,
        initial,
        latest,
        ends: now + lasts,
        bookmark: options.bookmarks.then(|| now + BOOKMARK_EVERY),
        over: false,
    };
    let frames = stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), watch))
    });
    Ok(streaming(StreamBody::new(frames).boxed_unsync()))
}

/// Why a wait ended.
enum Woken {
    Changed,
    Bookmark,
    Ended,
}

impl Watch {
    /// The next piece to send; `None` ends the stream cleanly, as `timeoutSeconds` does.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.initial.is_empty() {
            let initial = std::mem::take(&mut self.initial);
            self.model.capacity.run(costs::list(initial.len())).await;
            let wanted = initial.iter().filter(|object| self.selector.matches(object));
            return Some(wanted.flat_map(|object| self.line(Change::Added.as_str(), object)).collect());
        }
        while !self.over {
            match self.model.store.events_after(self.kind, self.cursor) {
                Ok(events) => {
                    if let Some(bytes) = self.encode(&events) {
                        self.model.capacity.run(costs::WATCH_DELIVERY).await;
                        return Some(bytes);
                    }
                }
                Err(expired) => {
                    self.over = true;
                    let status = Failure::expired(expired.to_string()).status();
                    return Some(line(&json!({"type": "ERROR", "object": status})).into());
                }
            }
            match self.wait().await {
                Woken::Changed => {}
                Woken::Bookmark => return Some(self.send_bookmark()),
                Woken::Ended => self.over = true,
            }
        }
        None
    }

    /// The wanted ones of these events; moves the cursor past all of them.
    fn encode(&mut self, events: &[Event]) -> Option<Bytes> {
        self.cursor = events.last()?.version;
        let wanted = events.iter().filter(|event| self.wants(&event.object));
        let bytes: Vec<u8> =
            wanted.flat_map(|event| self.line(event.change.as_str(), &event.object)).collect();
        (!bytes.is_empty()).then(|| bytes.into())
    }

    fn wants(&self, object: &Object) -> bool {
        let in_namespace = self.namespace.as_ref().is_none_or(|namespace| *namespace == object.namespace);
        in_namespace && self.selector.matches(object)
    }

    async fn wait(&mut self) -> Woken {
        let due = self.bookmark.unwrap_or(self.ends).min(self.ends);
        tokio::select! {
            changed = self.latest.changed() => if changed.is_ok() { Woken::Changed } else { Woken::Ended },
            () = tokio::time::sleep_until(due) => if due == self.ends { Woken::Ended } else { Woken::Bookmark },
        }
    }

    fn send_bookmark(&mut self) -> Bytes {
        self.bookmark = Some(Instant::now() + BOOKMARK_EVERY);
        // Everything of this kind up to the latest version has been seen, so the cursor may move there.
        self.cursor = self.cursor.max(*self.latest.borrow());
        let resource = self.kind.resource();
        line(&json!({
            "type": "BOOKMARK",
            "object": {
                "kind": resource.kind,
                "apiVersion": resource.api_version(),
                "metadata": {"resourceVersion": self.cursor.to_string()},
            },
        }))
        .into()
    }

    fn line(&self, change: &str, object: &Arc<Object>) -> Vec<u8> {
        match self.form {
            // The object is JSON already: no need to take it apart.
            Form::Object => {
                let mut line = format!("{{\"type\":\"{change}\",\"object\":").into_bytes();
                line.extend_from_slice(&object.json);
                line.extend_from_slice(b"}\n");
                line
            }
            Form::Table => {
                let metadata = json!({"resourceVersion": object.version.to_string()});
                let rows = std::iter::once(&**object);
                let table = table::table(self.kind, rows, &metadata, clock::wall());
                line(&json!({"type": change, "object": table}))
            }
        }
    }
}

fn line(event: &Value) -> Vec<u8> {
    let mut line = event.to_string().into_bytes();
    line.push(b'\n');
    line
}
