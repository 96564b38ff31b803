//! How is kube-apiserver asked about a token?
//!
//! By `POST tokenreviews` over connections of their own, as a user of spillway's that the front-proxy certificate
//! asserts. Runs on the control thread, so that a slow answer holds no request. The number of questions is bounded where
//! they are put ([`super::IN_FLIGHT_MAX`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Question, Reviews, Verdict};
use crate::authn::certificate::NAMES_BYTES_MAX;
use crate::identity::{Credential, GROUP_AUTHENTICATED, Identity};
use crate::upstream::{Forward, RequestBody, Route};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A question that is not answered by then is given up, and its place free again. kube-apiserver itself gives a webhook
/// ten seconds and more.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an answer; the token comes back in it.
const ANSWER_BYTES_MAX: usize = 128 * 1024;

/// The asking side.
pub struct Reviewer {
    reviews: Arc<Reviews>,
    asked: mpsc::Receiver<Question>,
}

#[derive(Deserialize)]
struct Answer {
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: HashMap<String, Vec<String>>,
}

/// Lands the question however its task ends.
struct Landing {
    reviews: Arc<Reviews>,
    question: Question,
    verdict: Verdict,
}

impl Landing {
    /// Takes the verdict, and says once when there begins to be none and when there is one again.
    fn settle(&mut self, answer: Result<Verdict, String>) {
        let fails = answer.is_err();
        let changed = self.reviews.failing.swap(fails, Ordering::Relaxed) != fails;
        match answer {
            Ok(verdict) => self.verdict = verdict,
            Err(reason) if changed => tracing::warn!(
                reason,
                "kube-apiserver does not review tokens: callers whom it alone knows rank as unknown"
            ),
            Err(_) => {}
        }
        if changed && !fails {
            tracing::info!("kube-apiserver reviews tokens again");
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let verdict = std::mem::replace(&mut self.verdict, Verdict::None);
        self.reviews.land(&self.question, verdict);
    }
}

impl Reviewer {
    /// `None` when tokens are not reviewed, or somebody does it already.
    pub(in crate::authn) fn of(reviews: &Arc<Reviews>) -> Option<Self> {
        let asked = reviews.asked.lock().take()?;
        Some(Self { reviews: Arc::clone(reviews), asked })
    }

    /// Answers questions for ever, over connections of `forward` that `route` names and that nobody else uses.
    pub async fn run(self, forward: Arc<dyn Forward>, route: Route) {
        let Self { reviews, mut asked } = self;
        while let Some(question) = asked.recv().await {
            let forward = Arc::clone(&forward);
            let mut landing = Landing { reviews: Arc::clone(&reviews), question, verdict: Verdict::None };
            tokio::spawn(Box::pin(async move {
                let asking = ask(&*forward, route, &landing.reviews.settings, &landing.question.token);
                let answer = timeout(ANSWER_WITHIN, asking).await;
                landing.settle(answer.unwrap_or_else(|_| Err("there was no answer in time".to_owned())));
            }));
        }
    }
}

async fn ask(
    forward: &dyn Forward,
    route: Route,
    settings: &super::Settings,
    token: &str,
) -> Result<Verdict, String> {
    let mut spec = json!({"token": token});
    if !settings.audiences.is_empty() {
        spec["audiences"] = json!(settings.audiences);
    }
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    let request = Request::post(PATH)
        .header("x-remote-user", &settings.user)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(RequestBody::full(Bytes::from(body.to_string())))
        .map_err(|error| error.to_string())?;
    let response = forward.forward(request, route).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let mut body = response.into_body();
    let mut text = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |part| part.as_ref()));
        if text.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long".to_owned());
        }
    }
    if status != StatusCode::CREATED && status != StatusCode::OK {
        return Err(format!("the answer is {status}; deploy/token-review.yaml has the rights it needs"));
    }
    let answer: Answer =
        serde_json::from_slice(&text).map_err(|_| "the answer is no TokenReview".to_owned())?;
    Ok(verdict(answer.status, &settings.audiences))
}

fn verdict(status: Status, audiences: &[String]) -> Verdict {
    // An authenticator that knows nothing of audiences returns none: then nobody has checked them.
    let meant_for_us = audiences.is_empty() || status.audiences.iter().any(|one| audiences.contains(one));
    let User { username, uid, mut groups, extra } = status.user;
    let bytes = username.len() + groups.iter().map(String::len).sum::<usize>();
    let splits = |name: &String| name.chars().any(char::is_control);
    let usable =
        !username.is_empty() && bytes <= NAMES_BYTES_MAX && !splits(&username) && !groups.iter().any(splits);
    if !status.authenticated || !meant_for_us || !usable {
        return Verdict::Bad;
    }
    if !groups.iter().any(|group| group == GROUP_AUTHENTICATED) {
        groups.push(GROUP_AUTHENTICATED.to_owned());
    }
    let mut extra: Vec<_> = extra.into_iter().map(|(key, values)| (key.to_lowercase(), values)).collect();
    extra.sort();
    Verdict::Good(Identity {
        user: username,
        uid: Some(uid).filter(|uid| !uid.is_empty()),
        groups,
        extra,
        credential: Credential::ReviewedToken,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The identity in an answer for these audiences, if it is good.
    pub(in super::super) fn read(answer: &str, audiences: &[&str]) -> Option<Identity> {
        let audiences: Vec<_> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        let answer: Answer = serde_json::from_str(answer).unwrap();
        match verdict(answer.status, &audiences) {
            Verdict::Good(identity) => Some(identity),
            _ => None,
        }
    }
}
