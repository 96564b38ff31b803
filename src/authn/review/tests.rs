use tokio::time::advance;

use super::*;
use crate::identity::Credential;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        user: "spillway:token-review".to_owned(),
        audiences: Vec::new(),
        positive_ttl: 10 * SECOND,
        negative_ttl: SECOND,
        wait: Duration::from_millis(250),
    }
}

/// Reviews whose questions the test answers.
struct Desk {
    reviews: Arc<Reviews>,
    asked: mpsc::Receiver<Question>,
    names: super::super::known::Known,
}

impl Desk {
    fn new() -> Self {
        let reviews = Reviews::new(settings()).unwrap();
        let asked = reviews.asked.lock().take().unwrap();
        Self { reviews, asked, names: super::super::known::Known::new().unwrap() }
    }

    fn look(&self, token: &str) -> Known {
        self.reviews.look(token, self.names.key(token))
    }

    /// Whether the token is known to be good; asking is not waited for.
    fn is_good(&self, token: &str) -> bool {
        matches!(self.look(token), Known::Good(_))
    }

    fn next(&mut self) -> Question {
        self.asked.try_recv().expect("a question")
    }

    fn answer(&mut self, verdict: Verdict) {
        let question = self.next();
        self.reviews.land(&question, verdict);
    }

    fn results(&self) -> HashMap<&'static str, u64> {
        self.reviews.tally().read().into_iter().collect()
    }
}

fn good(user: &str) -> Verdict {
    let identity = Identity {
        user: user.to_owned(),
        credential: Credential::ReviewedToken,
        ..(*Identity::anonymous()).clone()
    };
    Verdict::Good(identity)
}

#[tokio::test(start_paused = true)]
async fn b7_a_hit_never_extends_a_verdict_and_none_outlives_ten_seconds() {
    let mut desk = Desk::new();
    assert!(!desk.is_good("t"));
    desk.answer(good("ada"));
    for _ in 0..9 {
        advance(SECOND).await;
        assert!(desk.is_good("t"));
    }
    advance(SECOND).await;
    assert!(!desk.is_good("t"), "ten seconds after it was given");
    desk.answer(Verdict::Bad);
    assert!(!desk.is_good("t"));
    assert!(desk.asked.try_recv().is_err(), "a bad verdict is kept, too");
    advance(SECOND).await;
    assert!(!desk.is_good("t"));
    desk.answer(good("ada"));
    assert!(desk.is_good("t"), "and forgotten after a second");
}

#[tokio::test(start_paused = true)]
async fn b7_an_error_is_no_verdict_and_lets_the_apiserver_rest() {
    let mut desk = Desk::new();
    desk.look("t");
    desk.answer(Verdict::None);
    assert!(!desk.is_good("t"));
    assert!(desk.asked.try_recv().is_err(), "nothing is asked for a second");
    advance(SECOND).await;
    desk.look("t");
    desk.answer(good("ada"));
    assert!(desk.is_good("t"));
}

#[test]
fn b7_a_verdict_is_for_its_audiences_and_this_process_only() {
    let reviews = |audiences: &[&str]| {
        let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        let mut reviews =
            Arc::into_inner(Reviews::new(Settings { audiences, ..settings() }).unwrap()).unwrap();
        reviews.secret = hmac::Key::new(hmac::HMAC_SHA256, b"the same");
        reviews
    };
    let keys: Vec<_> =
        [reviews(&[]), reviews(&["a"]), reviews(&["a", "b"]), reviews(&["ab"]), reviews(&["b", "a"])]
            .iter()
            .map(|reviews| reviews.key("token").0)
            .collect();
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    let new = || Reviews::new(settings()).unwrap().key("token").0;
    assert_ne!(new(), new(), "the secret is the process's own");
}

#[tokio::test(start_paused = true)]
async fn b7_invented_tokens_push_no_good_one_out_and_take_bounded_memory() {
    let mut bad = Verdicts::new(BAD_MAX, SECOND, SECOND);
    let mut good = Verdicts::new(GOOD_MAX, 10 * SECOND, ACQUAINTED_FOR);
    let key = |number: u64| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Key(key)
    };
    let now = Instant::now();
    for number in 0..100 {
        good.keep(key(number), number, ENTRY_BYTES, now);
    }
    for number in 0..1_000_000 {
        bad.keep(key(number), (), ENTRY_BYTES, now);
        assert!(bad.entries.len() <= BAD_MAX.entries && bad.order.len() <= 2 * BAD_MAX.entries);
        assert!(bad.bytes <= BAD_MAX.bytes);
    }
    assert!((0..100).all(|number| good.find(&key(number), now) == Some(&number)));
    // Good ones of any size are bounded as well, and the same one again and again takes its place once.
    for number in 0..100_000 {
        good.keep(key(number % 7_000), number, 16 << 10, now);
        assert!(good.bytes <= GOOD_MAX.bytes && good.entries.len() <= GOOD_MAX.entries);
        assert!(good.order.len() <= 2 * GOOD_MAX.entries);
    }
    let sum: usize = good.entries.values().map(|entry| entry.bytes).sum();
    assert_eq!(sum, good.bytes);
}

#[tokio::test(start_paused = true)]
async fn b8_one_question_a_token_however_many_ask() {
    let mut desk = Desk::new();
    let mut pending = Vec::new();
    for _ in 0..100 {
        match desk.look("t") {
            Known::Pending(one) => pending.push(tokio::spawn(one.verdict())),
            _ => panic!("nobody knows it yet"),
        }
    }
    tokio::task::yield_now().await;
    desk.answer(good("ada"));
    assert!(desk.asked.try_recv().is_err(), "a second question");
    for one in pending {
        assert_eq!(one.await.unwrap().unwrap().identity.user, "ada");
    }
    assert_eq!(desk.reviews.state.lock().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn b8_a_slow_answer_is_waited_for_once_and_counts_when_it_comes() {
    let mut desk = Desk::new();
    let Known::Pending(pending) = desk.look("t") else { panic!("nobody knows it yet") };
    let begun = Instant::now();
    assert!(pending.verdict().await.is_none());
    assert_eq!(begun.elapsed(), Duration::from_millis(250));
    assert!(matches!(desk.look("t"), Known::Unverified), "the next request does not wait as well");
    assert_eq!((desk.results()["late"], desk.results()["full"]), (1, 1));
    desk.answer(good("ada"));
    assert!(desk.is_good("t"));
}

#[tokio::test(start_paused = true)]
async fn b8_eight_questions_at_once_and_two_places_for_acquaintances() {
    let mut desk = Desk::new();
    for known in ["known-1", "known-2", "known-3"] {
        desk.look(known);
        desk.answer(good(known));
    }
    advance(11 * SECOND).await;
    for number in 0..50 {
        desk.look(&format!("invented-{number}"));
    }
    let questions: Vec<_> = std::iter::from_fn(|| desk.asked.try_recv().ok()).collect();
    assert_eq!(questions.len(), STRANGERS_MAX);
    for known in ["known-1", "known-2", "known-3"] {
        desk.look(known);
    }
    assert_eq!(desk.next().token, "known-1");
    assert_eq!(desk.next().token, "known-2");
    assert!(desk.asked.try_recv().is_err(), "eight are eight");
    assert!(matches!(desk.look("invented-50"), Known::Unverified), "no place: at once");
    for question in &questions {
        desk.reviews.land(question, Verdict::Bad);
    }
    assert!(matches!(desk.look("invented-50"), Known::Pending(_)), "places come back");
}

/// A thousand invented tokens a second, an apiserver that takes 20 ms for each answer, and twenty callers with good ones.
#[tokio::test(start_paused = true)]
async fn b7_good_tokens_keep_their_rank_in_a_flood_of_invented_ones() {
    let mut desk = Desk::new();
    let (mut answers, mut waiting) = (VecDeque::new(), Vec::new());
    let (mut looks, mut hits) = (0, 0);
    for step in 0..6_000_u64 {
        // The flood begins when they are known; who is new in a flood has to wait for luck.
        for number in 0..if step < 1_000 { 0 } else { 5 } {
            desk.look(&format!("invented-{step}-{number}"));
        }
        if step % 10 == 0 {
            for number in 0..20 {
                let counts = step >= 1_000;
                looks += usize::from(counts);
                match desk.look(&format!("good-{number}")) {
                    Known::Good(_) => hits += usize::from(counts),
                    Known::Pending(pending) if counts => waiting.push(tokio::spawn(pending.verdict())),
                    _ => {}
                }
            }
        }
        while let Ok(question) = desk.asked.try_recv() {
            answers.push_back((Instant::now() + Duration::from_millis(20), question));
        }
        while let Some((_, question)) = answers.pop_front_if(|(due, _)| *due <= Instant::now()) {
            let verdict =
                if question.token.starts_with("good") { good(&question.token) } else { Verdict::Bad };
            desk.reviews.land(&question, verdict);
        }
        advance(Duration::from_millis(5)).await;
    }
    for pending in waiting {
        hits += usize::from(pending.await.unwrap().is_some());
    }
    assert!(looks > 9_000 && hits * 100 >= looks * 99, "{hits} of {looks}");
}

#[tokio::test(start_paused = true)]
async fn b8_invented_tokens_cost_the_apiserver_fifty_questions_a_second() {
    let mut desk = Desk::new();
    let mut asked = 0;
    for number in 0..400 {
        desk.look(&format!("invented-{number}"));
        while let Ok(question) = desk.asked.try_recv() {
            asked += 1;
            desk.reviews.land(&question, Verdict::Bad);
        }
        advance(Duration::from_millis(5)).await;
    }
    assert!((145..=150).contains(&asked), "fifty at once and fifty a second, for two seconds: {asked}");
}

#[test]
fn what_the_apiserver_answers_is_read_with_care() {
    use super::ask::tests::read;
    let status = |text: &str| format!(r#"{{"status": {text}}}"#);
    let ada = r#"{"authenticated": true, "user": {"username": "ada", "uid": "7", "groups": ["dev"], "extra": {"Scopes": ["a"]}}}"#;
    let identity = read(&status(ada), &[]).expect("good");
    assert_eq!((identity.user.as_str(), identity.uid.as_deref()), ("ada", Some("7")));
    assert_eq!(identity.groups, ["dev", "system:authenticated"]);
    assert_eq!(identity.extra, [("scopes".to_owned(), vec!["a".to_owned()])]);
    assert!(read(&status(ada), &["ours"]).is_none(), "nobody has checked the audience");
    let ours = ada.replace("\"user\"", "\"audiences\": [\"ours\"], \"user\"");
    assert!(read(&status(&ours), &["ours"]).is_some());
    assert!(read(&status(&ours), &["theirs"]).is_none());
    for bad in [
        r#"{"authenticated": false, "user": {"username": "ada"}}"#.to_owned(),
        r#"{"user": {"username": "ada"}}"#.to_owned(),
        r#"{"authenticated": true, "user": {"username": ""}}"#.to_owned(),
        r#"{"authenticated": true, "user": {"username": "a\nb"}}"#.to_owned(),
        format!(r#"{{"authenticated": true, "user": {{"username": "{}"}}}}"#, "a".repeat(20 << 10)),
    ] {
        assert!(read(&status(&bad), &[]).is_none(), "{bad}");
    }
}
