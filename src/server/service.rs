//! What happens between hyper and the handler?
//!
//! The request is held to what hyper cannot check (number of fields, no CONNECT), counted as running until
//! its answer's last byte, and a panic in the handler becomes a 500 for this request alone.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, CatchUnwind};
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;

use super::connection::{Connection, Protocol};
use super::handler::{BodyError, Handler, ServerBody, failure};
use super::heads::{self, Budget, Exhausted, Held};
use super::rest;
use super::tally::{Tally, count};

/// hyper's service for one connection.
pub(super) struct Requests {
    pub(super) connection: Arc<Connection>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) tally: Arc<Tally>,
    pub(super) fields_max: usize,
    /// What the heads of this connection, and those of its listener, may hold.
    pub(super) heads: Arc<Budget>,
    pub(super) all_heads: Arc<Budget>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let running = Running::new(&self.connection);
        let mut held = None;
        let state = match self.admit(&request) {
            Err(refusal) => {
                let coming = rest::is_coming(request.headers());
                // Its answer does not wait for it: nobody honest comes here.
                tokio::spawn(rest::throw_away(request, coming));
                State::Refused(Some(refusal))
            }
            Ok(head) => {
                held = Some(head);
                let connection = Arc::clone(&self.connection);
                match catch_unwind(AssertUnwindSafe(|| self.handler.handle(connection, request))) {
                    Ok(future) => State::Handled(AssertUnwindSafe(future).catch_unwind()),
                    Err(_) => State::Refused(Some(self.panicked())),
                }
            }
        };
        Answer { state, running: Some(running), held, tally: Arc::clone(&self.tally) }
    }
}

impl Requests {
    /// The room that the head takes, or the refusal of a request that is not for a handler.
    fn admit(&self, request: &Request<Incoming>) -> Result<Held, Response<ServerBody>> {
        let fields = request.headers().len();
        if fields > self.fields_max {
            count(&self.tally.too_many_fields);
            let message = format!("the request has {fields} header fields, the limit is {}", self.fields_max);
            return Err(failure(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "BadRequest", &message));
        }
        if request.method() == Method::CONNECT {
            return Err(failure(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "CONNECT is not served here",
            ));
        }
        heads::hold(request.headers(), &self.heads, &self.all_heads).map_err(|exhausted| {
            count(&self.tally.heads_refused);
            if exhausted == Exhausted::Connection {
                self.connection.refused_heads.fetch_add(1, Ordering::Relaxed);
            }
            let message = "too many requests with large heads are unanswered: send fewer headers, or fewer requests at a time";
            let mut refusal = failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
            refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            refusal
        })
    }

    fn panicked(&self) -> Response<ServerBody> {
        panicked(&self.tally)
    }
}

fn panicked(tally: &Tally) -> Response<ServerBody> {
    count(&tally.panicked);
    failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "spillway failed on this request")
}

/// The answer to come.
pub(super) struct Answer {
    state: State,
    running: Option<Running>,
    /// Given back with the answer's head: the request was sent on by then.
    held: Option<Held>,
    tally: Arc<Tally>,
}

enum State {
    Refused(Option<Response<ServerBody>>),
    Handled(CatchUnwind<AssertUnwindSafe<BoxFuture<'static, Response<ServerBody>>>>),
}

impl Future for Answer {
    type Output = Result<Response<Counted>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let response = match &mut this.state {
            State::Refused(refusal) => refusal.take(),
            State::Handled(future) => match Pin::new(future).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(response) => response.ok(),
            },
        };
        let response = response.unwrap_or_else(|| panicked(&this.tally));
        let running = this.running.take();
        this.held = None;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(Running(connection)) = &running
        {
            connection.activity.switch();
        }
        Poll::Ready(Ok(response.map(|body| Counted::new(body, running))))
    }
}

/// A request is running until this is dropped.
struct Running(Arc<Connection>);

impl Running {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.activity.request_began();
        Self(Arc::clone(connection))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.activity.request_ended();
    }
}

/// An answer's body that keeps its request counted as running.
pub(super) struct Counted {
    body: ServerBody,
    /// There are bytes for the client, as far as we know, and it has not taken them: over HTTP/2 a body is asked for its
    /// next bytes when there is room for them.
    waits: bool,
    running: Option<Running>,
}

impl Counted {
    fn new(body: ServerBody, running: Option<Running>) -> Self {
        let mut counted = Self { body, waits: false, running };
        counted.set_waiting(!counted.body.is_end_stream());
        counted
    }

    fn set_waiting(&mut self, waits: bool) {
        let Some(Running(connection)) = &self.running else { return };
        if waits != self.waits && connection.protocol == Protocol::Http2 {
            self.waits = waits;
            if waits {
                connection.activity.answer_waits();
            } else {
                connection.activity.answer_goes_on();
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set_waiting(false);
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.set_waiting(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
