//! Row B8 of the threat model: what does it cost others that kube-apiserver does not answer TokenReviews?
//!
//! Two spillways, whose apiservers answer a review at once and after five seconds; in turn, strangers come to one of
//! them with tokens that only its apiserver can judge. What they cost a bystander there is compared.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::runtime::Builder;

use crate::{
    bystander::{Bystander, quantile},
    client::{Caller, Protocol, get, with},
    floods::{median, wish},
    framing::{stand::Stand, upstream::Reply},
};

/// How long the outage makes a TokenReview take.
const OUTAGE: Duration = Duration::from_secs(5);
/// What an apiserver in good health says at once.
const VERDICT: &str =
    r#"{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":false}}"#;
/// Strangers, each with a new token for each request.
const STRANGERS: usize = 16;
/// Between two requests of a stranger.
const PAUSE: Duration = Duration::from_millis(100);
/// How long each is measured, and how often, unless `NEIGHBOURS_MS` and `NEIGHBOURS_ROUNDS` say otherwise.
const WINDOW_MS: u32 = 1_500;
const ROUNDS: u32 = 3;
/// How much slower others may be while no review is answered, and what is the machine's.
const RATIO_MAX: f64 = 2.0;
const NOISE_MS: f64 = 3.0;

/// One spillway with somebody who measures.
struct Side {
    name: &'static str,
    stand: Stand,
    bystander: Bystander,
    /// In milliseconds, one a window: the bystander's, then the strangers' own.
    p50: Vec<f64>,
    p99: Vec<f64>,
    strangers: Vec<f64>,
}

impl Side {
    fn new(name: &'static str, review: Reply) -> Self {
        let stand = Stand::start_with(false, |config| {
            config["authentication"]["tokenReview"] = json!({"enabled": true});
        });
        stand.upstream.reply("/tokenreviews", review);
        let bystander = Bystander::start(&stand);
        Self { name, stand, bystander, p50: vec![], p99: vec![], strangers: vec![] }
    }

    /// One window with strangers.
    fn measure(&mut self, window: Duration) {
        let over = Arc::new(AtomicBool::new(false));
        let strangers = come(self.stand.nobody(), Arc::clone(&over));
        let from = Instant::now();
        thread::sleep(window);
        let to = Instant::now();
        over.store(true, Ordering::Relaxed);
        let of = |took: &[Duration], percent| quantile(took, percent).as_secs_f64() * 1e3;
        let took = self.bystander.between(from, to);
        self.p50.push(of(&took, 50));
        self.p99.push(of(&took, 99));
        let took = strangers.join().expect("every stranger is answered");
        self.strangers.push(of(&took, 50));
    }

    fn reviews(&self, result: &str) -> f64 {
        self.stand.metric(&format!("spillway_token_reviews_total{{result=\"{result}\"}}"))
    }

    fn line(&self) -> String {
        let [p50, p99, strangers] = [&self.p50, &self.p99, &self.strangers].map(|all| median(all.clone()));
        format!(
            "{:<28} {p50:6.2} {p99:6.2}  {strangers:10.1}  reviews: {} answered, {} late, {} not asked\n",
            self.name,
            self.reviews("bad"),
            self.reviews("late"),
            self.reviews("full")
        )
    }
}

/// Strangers who ask until they are told to stop; how long each answer took.
fn come(nobody: Caller, over: Arc<AtomicBool>) -> thread::JoinHandle<Vec<Duration>> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let all = (0..STRANGERS).map(|_| {
            let (nobody, over) = (nobody.clone(), Arc::clone(&over));
            async move {
                let mut connection = nobody.connect(Protocol::Http2).await;
                let mut took = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let token = format!("Bearer invented-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
                    let asked = Instant::now();
                    connection.ask(with(get("/stranger"), "authorization", &token)).await;
                    took.push(asked.elapsed());
                    tokio::time::sleep(PAUSE).await;
                }
                took
            }
        });
        runtime.block_on(futures_util::future::join_all(all)).concat()
    })
}

#[test]
fn b8_reviews_that_take_five_seconds_cost_others_nothing() {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{VERDICT}",
        VERDICT.len()
    );
    let mut sides = [
        Side::new("reviews answered at once", Reply::Raw(answer.into_bytes())),
        Side::new("reviews answered after 5 s", Reply::After(OUTAGE)),
    ];
    let window = Duration::from_millis(wish("NEIGHBOURS_MS", WINDOW_MS).into());
    for _ in 0..wish("NEIGHBOURS_ROUNDS", ROUNDS) {
        sides.iter_mut().for_each(|side| side.measure(window));
    }
    let table: String = sides.iter().map(Side::line).collect();
    let head = "                             others p50, p99 ms  strangers p50\n";
    // Past the capture of the test's output: the table is the point.
    let _ = std::io::stderr().write_all(format!("\n{head}{table}").as_bytes());
    let [calm, outage] = &sides;
    assert!(calm.reviews("bad") > 10.0, "no review was answered: this proves nothing\n{table}");
    assert!(
        outage.reviews("late") + outage.reviews("full") > 10.0,
        "no review hung: this proves nothing\n{table}"
    );
    let [calm, outage] = [calm, outage].map(|side| median(side.p99.clone()));
    assert!(outage < calm * RATIO_MAX + NOISE_MS, "{table}");
    sides.into_iter().for_each(|side| side.bystander.end());
}
