//! How much left through the lane, and when was it over?
//!
//! A request's record is on the disk before its answer leaves, so it cannot say how long the answer was. That is told by a
//! second record, `end`, when the last byte was handed on or the client has gone. It is joined to the first by
//! `request_id`, and nobody waits for it. A session (exec, port-forward) is a tunnel and no body; its record comes when the
//! tunnel is over, and counts what it carried.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Map, Value, json};

use super::audit::Audit;
use super::authority::Bearer;
use super::shown;
use crate::clock;
use crate::server::{BodyError, ServerBody, Tunnel, TunnelBytes};
use crate::units::Instant;

/// What the second record repeats of the first, to be read without it.
const REPEATED: [&str; 5] = ["actor", "source", "conn_id", "method", "class"];

/// Writes the second record when it is dropped.
pub(super) struct After {
    facts: Map<String, Value>,
    audit: Audit,
    arrived: Instant,
    declared: Option<u64>,
    sent: u64,
    complete: bool,
    tunnel: Option<Arc<TunnelBytes>>,
}

/// The length of a request's body, if the client says it. What it sent is never counted: bodies go on as they come.
pub(super) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl After {
    /// For answers to people: a self-probe is told once.
    pub(super) fn of(
        first: &Map<String, Value>,
        audit: &Audit,
        bearer: Bearer,
        (arrived, declared): (Instant, Option<u64>),
        response: &Response<ServerBody>,
        request_id: Option<&String>,
    ) -> Option<Self> {
        if bearer == Bearer::Drill {
            return None;
        }
        let repeated = REPEATED.iter().filter_map(|key| Some(((*key).to_owned(), first.get(*key)?.clone())));
        let mut facts: Map<String, Value> = repeated.collect();
        facts.insert("event".to_owned(), "end".into());
        facts.insert("request_id".to_owned(), request_id.map(String::as_str).into());
        facts.insert("status".to_owned(), response.status().as_u16().into());
        Some(Self { facts, audit: audit.clone(), arrived, declared, sent: 0, complete: false, tunnel: None })
    }
}

impl Drop for After {
    fn drop(&mut self) {
        let mut facts = std::mem::take(&mut self.facts);
        let took = clock::now().since(self.arrived);
        let (outcome, carried) = match (&self.tunnel, self.complete) {
            (Some(tunnel), _) => {
                let [up, down] = [&tunnel.from_client, &tunnel.to_client];
                ("over", (Some(up.load(Ordering::Relaxed)), down.load(Ordering::Relaxed)))
            }
            (None, true) => ("complete", (self.declared, self.sent)),
            (None, false) => ("cut", (self.declared, self.sent)),
        };
        facts.insert("time".to_owned(), shown::time_millis(clock::wall()).into());
        facts.insert("bytes".to_owned(), json!({ "in": carried.0, "out": carried.1 }));
        facts.insert("outcome".to_owned(), outcome.into());
        facts.insert("duration_us".to_owned(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX).into());
        self.audit.note(facts);
    }
}

/// The answer, followed to its end.
pub(super) fn follow(response: Response<ServerBody>, after: Option<After>) -> Response<ServerBody> {
    let Some(mut after) = after else { return response };
    if let Some(tunnel) = response.extensions().get::<Arc<Tunnel>>() {
        after.tunnel = Some(Arc::clone(&tunnel.bytes));
        // There is one gate, so nobody else has hung anything on.
        let _ = tunnel.at_end.set(Box::new(after));
        return response;
    }
    response.map(|body| {
        after.complete = body.is_end_stream();
        Followed { body, after }.boxed_unsync()
    })
}

struct Followed {
    body: ServerBody,
    after: After,
}

impl Body for Followed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.after.sent += frame.data_ref().map_or(0, |bytes| bytes.remaining() as u64);
                this.after.complete = this.body.is_end_stream();
            }
            Poll::Ready(None) => this.after.complete = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
