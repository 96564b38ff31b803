//! What is answered at which address?
//!
//! `/` is the whole page, `/shell` the same without anything in it, `/live` pushes what changed, once a second, as
//! server-sent events. `/v1/…` is the levers' API as the admin socket has it, as far as a role reaches. Each page is made
//! once a second, however many watch it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tower::ServiceExt as _;

use super::access::{Guest, Place, Refused, Role, allowed, judge, needed, told};
use super::figures::Figures;
use super::look::Look;
use super::page::{Content, Panel, View, document};
use super::{access, code};
use crate::admin::wire::Problem;
use crate::admin::{self, Operations};

/// How often the proxy is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Pages that are watched at a time.
const VIEWERS_MAX: usize = 32;
/// Different pages that are kept drawn.
const PAGES_MAX: usize = 64;
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Nothing is loaded from elsewhere, nothing runs that is not ours, nobody puts it into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Makes [`Figures`].
type Figured = Box<dyn Fn() -> Figures + Send + Sync>;

/// The dashboard of one proxy.
pub struct Dashboard {
    operations: Arc<dyn Operations>,
    figured: Figured,
    look: Mutex<Look>,
    /// Pages as they were drawn from the look of that number.
    drawn: Mutex<HashMap<View, (u64, Arc<Vec<Panel>>)>>,
    levers: Router,
    turned: watch::Sender<u64>,
    viewers: Arc<Semaphore>,
}

impl Dashboard {
    /// A dashboard over what can be asked of a proxy.
    pub fn new(operations: Arc<dyn Operations>, figured: Figured) -> Arc<Self> {
        Arc::new(Self {
            levers: admin::router(Arc::clone(&operations)),
            operations,
            figured,
            look: Mutex::default(),
            drawn: Mutex::default(),
            turned: watch::channel(0).0,
            viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
        })
    }

    /// Looks once a second until the runtime ends.
    pub(super) async fn keep(&self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look_again();
        }
    }

    fn look_again(&self) {
        let figures = (self.figured)();
        let mut look = self.look.lock();
        look.again(&*self.operations, figures);
        self.turned.send_replace(look.number);
    }

    /// The panels of a page, drawn once a look.
    fn page(&self, view: &View) -> Arc<Vec<Panel>> {
        let (look, mut drawn) = (self.look.lock(), self.drawn.lock());
        if let Some((number, panels)) = drawn.get(view)
            && *number == look.number
        {
            return Arc::clone(panels);
        }
        if drawn.len() >= PAGES_MAX {
            drawn.clear();
        }
        let panels = Arc::new(view.panels(&look, &*self.operations));
        drawn.insert(view.clone(), (look.number, Arc::clone(&panels)));
        panels
    }

    /// Answers one request that came over a connection with `role`.
    pub(super) async fn respond(
        self: Arc<Self>,
        request: Request<Body>,
        guest: Guest,
        place: Place<'_>,
    ) -> Response {
        let as_text = access::wants_text(&request);
        let answered = self.answer(request, guest, place).await;
        let response = answered.unwrap_or_else(|(status, problem)| told(as_text, status, &problem));
        Self::guarded(response)
    }

    /// With what tells a browser to do nothing but show it.
    pub(super) fn guarded(mut response: Response) -> Response {
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-store"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ] {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
        for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
            headers.insert(name, header::HeaderValue::from_static("same-origin"));
        }
        response
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Body>,
        guest: Guest,
        place: Place<'_>,
    ) -> Result<Response, Refused> {
        let (head, body) = request.into_parts();
        let role = judge(&head, guest.role, place)?;
        let who = guest.shown(&head.headers);
        let view = View::of(head.uri.query());
        let path = head.uri.path();
        if head.method == Method::GET {
            match path {
                "/" | "/index.html" => {
                    return Ok(html(&self.document(&view.ok_or_else(no_page)?, (&who, role))));
                }
                "/shell" => {
                    let view = view.ok_or_else(no_page)?;
                    return Ok(html(&document(&view, ("…", role), &self.look.lock(), &Content::Later)));
                }
                "/live" => return self.live(view.ok_or_else(no_page)?, (role, who)),
                "/status.txt" => return Ok(typed("text/plain; charset=utf-8", self.plain_text())),
                _ => {}
            }
            if let Some((kind, text)) = asset(path) {
                return Ok(typed(kind, text.to_owned()));
            }
        }
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| {
            let message = format!("the request has more than {BODY_BYTES_MAX} bytes, or broke off");
            (StatusCode::PAYLOAD_TOO_LARGE, Problem::new(code::NO_PAGE, message, "nothing was changed"))
        })?;
        let body = body.to_bytes();
        let needed = needed(&head.method, path, &body).ok_or_else(no_page)?;
        allowed(&guest, role, needed).inspect_err(|_| {
            let (by, role, path) = (&guest.by, role.as_str(), path);
            tracing::warn!(%by, role, path, code = code::ROLE, "the role may not do that: nothing was changed");
        })?;
        let mut request = Request::from_parts(head, Body::from(body));
        request.extensions_mut().insert(guest.by);
        match self.levers.clone().oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    fn document(&self, view: &View, who: (&str, Role)) -> String {
        let panels = self.page(view);
        document(view, who, &self.look.lock(), &Content::Here(&panels))
    }

    /// The verdict and the lanes for `curl` and for screen readers that want no page.
    fn plain_text(&self) -> String {
        let look = self.look.lock();
        let (word, _, _) = look.word();
        let status = &look.status;
        let mut text = format!("{word}: {}\n", status.diagnosis);
        for lane in &status.lanes {
            text += &format!(
                "{}: {}/{} seats, {} waiting, {:.1}/s served, {:.1}/s refused\n",
                lane.name,
                lane.seats,
                lane.ceiling,
                lane.waiting,
                lane.served_per_second,
                lane.shed_per_second
            );
        }
        text
    }

    /// Pushes what changed of a page, from now on.
    fn live(self: Arc<Self>, view: View, (role, who): (Role, String)) -> Result<Response, Refused> {
        let Ok(place) = Arc::clone(&self.viewers).try_acquire_owned() else {
            let message = format!("{VIEWERS_MAX} pages are watched already");
            let problem = Problem::new(code::VIEWERS, message, "close one; or on the node: spillway status");
            return Err((StatusCode::SERVICE_UNAVAILABLE, problem));
        };
        let turns = self.turned.subscribe();
        let seen = HashMap::new();
        let viewer = Viewer { dashboard: self, view, role, who, turns, seen, is_new: true, _place: place };
        let body = Body::from_stream(stream::unfold(viewer, Viewer::next));
        Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
    }
}

/// Somebody who watches a page.
struct Viewer {
    dashboard: Arc<Dashboard>,
    view: View,
    role: Role,
    /// Who watches.
    who: String,
    turns: watch::Receiver<u64>,
    /// Hashes of the panels as they were pushed last.
    seen: HashMap<&'static str, u64>,
    is_new: bool,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    /// The next event, when there is one; a viewer that reads slowly misses those in between.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if !std::mem::take(&mut self.is_new) {
            self.turns.changed().await.ok()?;
        }
        let number = *self.turns.borrow_and_update();
        let panels = self.dashboard.page(&self.view);
        let order: Vec<&str> = panels.iter().map(|panel| panel.id).collect();
        let mut changed = Vec::new();
        for panel in panels.iter() {
            let mut hasher = DefaultHasher::new();
            panel.html.hash(&mut hasher);
            let hash = hasher.finish();
            if self.seen.insert(panel.id, hash) != Some(hash) {
                changed.push(json!({ "id": panel.id, "class": panel.class, "html": panel.html }));
            }
        }
        let host = self.dashboard.look.lock().figures.host.clone();
        let event = json!({ "number": number, "role": self.role.as_str(), "who": self.who, "host": host, "order": order, "panels": changed });
        Some((Ok(Bytes::from(format!("data: {event}\n\n"))), self))
    }
}

fn asset(path: &str) -> Option<(&'static str, &'static str)> {
    match path {
        "/app.js" => Some(("text/javascript; charset=utf-8", include_str!("assets/app.js"))),
        "/style.css" => Some(("text/css; charset=utf-8", include_str!("assets/style.css"))),
        "/icon.svg" => Some(("image/svg+xml", include_str!("assets/icon.svg"))),
        _ => None,
    }
}

/// Whether an address shows nothing of the proxy: it may be fetched before a token was shown.
pub(super) fn is_bare(path: &str) -> bool {
    asset(path).is_some()
}

fn html(text: &str) -> Response {
    typed("text/html; charset=utf-8", text.to_owned())
}

fn typed(kind: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn no_page() -> access::Refused {
    let problem = Problem::new(code::NO_PAGE, "there is no such page", "GET / is the overview");
    (StatusCode::NOT_FOUND, problem)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
