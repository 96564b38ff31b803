//! How does a client of client-go's making ask? With its retries: after a 429, or a 5xx that carries `Retry-After`, it
//! sleeps exactly those seconds and tries again, ten times, within the time that the whole call has.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};

use super::client::{Connection, Failure, Who, retry_after, swallow};

/// client-go's retries within one call.
const RETRIES: usize = 10;

/// A client: who it is, its connection, and how often it was told to come back.
pub(crate) struct Client<'a> {
    who: &'a Who,
    connection: Option<Connection>,
    refused: &'a AtomicU64,
}

/// What to do with the answer's body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Keep,
    /// Read it to its end, and keep nothing.
    Drain,
    /// Leave it where it is: the head of a watch is what was asked for.
    Leave,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl<'a> Client<'a> {
    pub(crate) fn new(who: &'a Who, refused: &'a AtomicU64) -> Self {
        Self { who, connection: None, refused }
    }

    /// Lets the connection go, as a kubelet does when its heartbeats fail.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// A GET that has to end with 200.
    pub(crate) async fn get(&mut self, path: &str, body: Body, patience: Duration) -> Result<Answer, String> {
        match self.call(Method::GET, path, None, body, patience).await? {
            answer if answer.status == 200 => Ok(answer),
            answer => Err(format!("GET {path}: status {}", answer.status)),
        }
    }

    /// One call, retries included, within `patience`.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        content: Option<&str>,
        body: Body,
        patience: Duration,
    ) -> Result<Answer, String> {
        let outcome = timeout(patience, self.tries(&method, path, content, body)).await;
        match outcome.unwrap_or(Err(Failure::Timeout)) {
            Ok(answer) => Ok(answer),
            Err(failure) => {
                // A connection that merely answers late stays: that is HTTP/2's way.
                if matches!(failure, Failure::Broken(_)) {
                    self.connection = None;
                }
                Err(format!("{method} {path}: {failure}"))
            }
        }
    }

    async fn tries(
        &mut self,
        method: &Method,
        path: &str,
        content: Option<&str>,
        body: Body,
    ) -> Result<Answer, Failure> {
        for left in (0..=RETRIES).rev() {
            let connection = match &mut self.connection {
                Some(open) => open,
                none => none.insert(self.who.connect().await?),
            };
            let response = connection.open(method.clone(), path, content.map(Into::into)).await?;
            let (status, seconds) = (response.status().as_u16(), retry_after(&response));
            if status == 429 {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(seconds) = seconds.filter(|_| left > 0 && (status == 429 || status >= 500)) {
                swallow(response.into_body()).await?;
                sleep(Duration::from_secs(seconds)).await;
                continue;
            }
            let body = match body {
                Body::Keep => collect(response.into_body()).await?,
                Body::Drain => swallow(response.into_body()).await.map(|_| Bytes::new())?,
                Body::Leave => Bytes::new(),
            };
            return Ok(Answer { status, body });
        }
        unreachable!("the last try does not wait for another")
    }
}

async fn collect(body: hyper::body::Incoming) -> Result<Bytes, Failure> {
    let whole = body.collect().await.map_err(|e| Failure::Broken(e.to_string()))?;
    Ok(whole.to_bytes())
}
