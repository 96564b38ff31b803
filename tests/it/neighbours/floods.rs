//! Rows A8 to A12 of the threat model: is abuse of HTTP/2 any worse for others than as many honest clients?

use std::{
    env,
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use crate::{
    abusers::{self, Abuse, Crowd, Deed},
    bystander::{Bystander, quantile},
    framing::{stand::Stand, upstream::Reply},
};

/// How much more an abuser may cost others than an honest client does.
const RATIO_MAX: f64 = 2.0;
/// Differences below this are the machine's.
const NOISE: Duration = Duration::from_millis(3);
/// After a change of what runs, before it is measured.
const SETTLE: Duration = Duration::from_millis(100);
/// How long something is measured, and how often, unless `NEIGHBOURS_MS` and `NEIGHBOURS_ROUNDS` say otherwise.
const WINDOW_MS: u32 = 300;
const ROUNDS: u32 = 5;

/// From the start until so many honest clients a second get through, with so many requests each.
const READY: Duration = Duration::from_secs(60);
const READY_RATE: f64 = 10.0;
const HONEST: usize = 100;

pub(crate) fn wish(name: &str, otherwise: u32) -> u32 {
    env::var(name).ok().map_or(otherwise, |value| value.parse().expect("a number"))
}

/// What one window saw.
struct Window {
    p50: Duration,
    p99: Duration,
    /// Connections of the crowd a second.
    rate: f64,
    /// spillway's processor time for each of them.
    each: Duration,
    /// spillway's share of one processor.
    share: f64,
}

/// The medians of all windows of a kind.
struct Row {
    p50: f64,
    p99: f64,
    rate: f64,
    each: f64,
    share: f64,
}

struct Scene<'a> {
    stand: &'a Stand,
    bystander: Bystander,
    crowd: Crowd,
    window: Duration,
}

impl Scene<'_> {
    fn measure(&self, deed: Option<&Deed>) -> Window {
        let running = deed.map(|deed| self.crowd.begin(deed));
        std::thread::sleep(SETTLE);
        let done = || running.as_ref().map_or(0, abusers::Running::done);
        let (from, before, cpu) = (Instant::now(), done(), self.stand.processor_time());
        std::thread::sleep(self.window);
        let (to, after, cpu) = (Instant::now(), done(), self.stand.processor_time().saturating_sub(cpu));
        if let Some(running) = running {
            running.end();
        }
        let mut took = self.bystander.between(from, to);
        if took.is_empty() {
            // Nothing was answered in all the time: at least as long as that.
            took.push(self.window);
        }
        let sessions = after - before;
        Window {
            p50: quantile(&took, 50),
            p99: quantile(&took, 99),
            rate: sessions as f64 / (to - from).as_secs_f64(),
            each: cpu / u32::try_from(sessions.max(1)).expect("a few"),
            share: cpu.as_secs_f64() / (to - from).as_secs_f64(),
        }
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(windows: &[Window]) -> Row {
    let of = |value: fn(&Window) -> f64| median(windows.iter().map(value).collect());
    Row {
        p50: of(|window| window.p50.as_secs_f64() * 1e3),
        p99: of(|window| window.p99.as_secs_f64() * 1e3),
        rate: of(|window| window.rate),
        each: of(|window| window.each.as_secs_f64() * 1e3),
        share: of(|window| window.share),
    }
}

/// Alone, beside honest clients, beside abusers.
fn play(scene: &Scene<'_>, abuse: &Abuse, rounds: u32) -> [Row; 3] {
    let mut windows: [Vec<Window>; 3] = Default::default();
    for _ in 0..rounds {
        windows[0].push(scene.measure(None));
        windows[1].push(scene.measure(Some(&abuse.honest)));
        windows[2].push(scene.measure(Some(&abuse.deed)));
    }
    windows.map(|windows| row(&windows))
}

const HEAD: &str = "
                      alone          beside honest clients             beside abusers                    p99 beside abusers
                      p50    p99 ms  p50    p99   conn/s  ms each cpu  p50    p99   conn/s  ms each cpu  to alone  to honest
";

fn line(name: &str, [alone, honest, abused]: &[Row; 3]) -> String {
    let mut line = format!("{name:<20} {:6.2} {:6.2}  ", alone.p50, alone.p99);
    for row in [honest, abused] {
        let Row { p50, p99, rate, each, share } = row;
        let _ = write!(line, "{p50:6.2} {p99:6.2} {rate:7.0} {each:8.2} {share:4.1}  ");
    }
    line + &format!("{:7.1} {:9.1}\n", abused.p99 / alone.p99, abused.p99 / honest.p99)
}

#[test]
fn a12_no_abuse_costs_others_more_than_honest_clients_do() {
    let stand = Stand::with_own_limits(true);
    stand.upstream.reply("/held", Reply::Never);
    stand.upstream.reply("/large", Reply::Bytes(256 << 10));
    let scene = Scene {
        stand: &stand,
        bystander: Bystander::start(&stand),
        crowd: Crowd::new(stand.nobody()),
        window: Duration::from_millis(wish("NEIGHBOURS_MS", WINDOW_MS).into()),
    };
    let only = env::var("NEIGHBOURS_ONLY").unwrap_or_default();
    let rounds = wish("NEIGHBOURS_ROUNDS", ROUNDS);
    let (mut table, mut worse) = (HEAD.to_owned(), Vec::new());
    // After its start spillway opens up by and by: honest clients have to get through before anything is compared.
    let ready = Instant::now() + READY;
    while scene.measure(Some(&Deed::Honest(HONEST))).rate < READY_RATE {
        assert!(Instant::now() < ready, "honest clients are not served within {READY:?}");
    }
    for abuse in abusers::all().iter().filter(|abuse| abuse.name.contains(&only)) {
        let rows = play(&scene, abuse, rounds);
        let line = line(abuse.name, &rows);
        let [_, honest, abused] = rows;
        if abused.p99 > honest.p99 * RATIO_MAX + NOISE.as_secs_f64() * 1e3 {
            worse.push(line.clone());
        }
        table += &line;
    }
    // Past the capture of the test's output: the table is the point.
    let _ = std::io::stderr().write_all(table.as_bytes());
    scene.bystander.end();
    assert!(worse.is_empty(), "others notice these more than honest clients:{HEAD}{}", worse.concat());
    stand.until("the seats to come back", |stand| stand.metric("spillway_inflight_seats") == 0.0);
}
