//! Who abuses spillway, and who is as many and sends as much in good faith?
//!
//! An abuser connects, sends what it has in one go, waits until it is cut off (or answered), and comes back at once. All
//! of them come from one address, the honest ones from another.
//! They have a thread of their own with the lowest priority: in the world they are on other machines, and the processor
//! time that they take for themselves must not be counted against spillway.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::nice;
use tokio::{
    runtime::Builder,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

use crate::{
    client::Caller,
    framing::wire::{self, Raw, ask, field, frame, request},
};

/// How many come at a time.
const ABUSERS: usize = 4;
/// How long answers are left unread.
const HELD_FOR: Duration = Duration::from_millis(50);
/// For the server to take what is sent, and to cut off or answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What comes over one connection.
#[derive(Clone)]
pub(crate) enum Deed {
    /// Until the server ends it.
    CutOff(Vec<u8>),
    /// Until it has looked at all of it, which the answer to a PING at the end says.
    Answered(Vec<u8>),
    /// Requests with a window of zero, so that no answer can leave, for a while.
    Held(Vec<u8>, Duration),
    /// The same requests, whose answers are read.
    Read(Vec<u8>, usize),
    /// So many small requests as anybody sends them; the answers are read.
    Honest(usize),
}

impl Deed {
    const fn is_honest(&self) -> bool {
        matches!(self, Self::Read(..) | Self::Honest(_))
    }
}

/// A kind of abuse, and how many honest requests send as many bytes.
pub(crate) struct Abuse {
    pub(crate) name: &'static str,
    pub(crate) deed: Deed,
    pub(crate) honest: Deed,
}

/// Bytes of an ordinary request with its head: kubelets and informers send three to five hundred.
const HONEST_BYTES: usize = 400;
/// Requests that one connection may have at a time.
const HONEST_MAX: usize = 100;

impl Abuse {
    fn new(name: &'static str, deed: Deed) -> Self {
        let bytes = match &deed {
            Deed::CutOff(bytes) | Deed::Answered(bytes) | Deed::Held(bytes, _) | Deed::Read(bytes, _) => {
                bytes.len()
            }
            Deed::Honest(requests) => requests * HONEST_BYTES,
        };
        Self { name, deed, honest: Deed::Honest((bytes / HONEST_BYTES).clamp(1, HONEST_MAX)) }
    }

    /// Answers that nobody reads; honest clients ask for the same and read it.
    fn unread() -> Self {
        const ASKED: u32 = 20;
        let asks: Vec<u8> = (0..ASKED).flat_map(|n| ask(n * 2 + 1, &request("GET", "/large"))).collect();
        let honest = Deed::Read(asks.clone(), ASKED as usize);
        Self { name: "closed windows", deed: Deed::Held(asks, HELD_FOR), honest }
    }
}

/// A stream is opened for `/held`, and something is done to it.
fn streams(count: u32, done: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let one = |number| {
        let id = number * 2 + 1;
        [ask(id, &request("GET", "/held")), done(id)].concat()
    };
    (0..count).flat_map(one).collect()
}

/// References to one field of the table, after the pseudo-headers and the field itself.
fn bomb(count: usize, first: bool) -> Vec<u8> {
    let mut block = wire::block(&request("POST", "/held"));
    if first {
        block.extend_from_slice(b"\x40\x01a\x00");
    }
    block.extend(std::iter::repeat_n(0xbe, count));
    block
}

/// Frames that cost nothing, on a connection with one open stream.
fn frames(name: &'static str, one: &[u8]) -> Abuse {
    let open = frame(wire::HEADERS, wire::END_HEADERS, 1, &wire::block(&request("POST", "/held")));
    Abuse::new(name, Deed::CutOff([open, one.repeat(4_000)].concat()))
}

/// All of them.
pub(crate) fn all() -> Vec<Abuse> {
    let reset = |id| frame(wire::RST_STREAM, 0, id, &[0, 0, 0, 8]);
    let beyond = |id| frame(wire::WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff]);
    let head = frame(wire::HEADERS, 0, 1, &wire::block(&request("GET", "/held")));
    let pieces = frame(wire::CONTINUATION, 0, 1, &[]).repeat(64);
    let bombs = |number: u32| frame(wire::HEADERS, wire::END_HEADERS, number * 2 + 1, &bomb(95, number == 0));
    vec![
        Abuse::new("rapid reset", Deed::CutOff(streams(1_000, reset))),
        Abuse::new(
            "increment of zero",
            Deed::CutOff(streams(600, |id| frame(wire::WINDOW_UPDATE, 0, id, &[0; 4]))),
        ),
        Abuse::new("window beyond limit", Deed::CutOff(streams(600, beyond))),
        Abuse::new(
            "data after the end",
            Deed::CutOff(streams(600, |id| frame(wire::DATA, wire::END, id, b"more"))),
        ),
        Abuse::new("continuations", Deed::CutOff([head, pieces].concat())),
        Abuse::new(
            "too many fields",
            Deed::CutOff(frame(wire::HEADERS, wire::END_HEADERS, 1, &bomb(2_000, true))),
        ),
        Abuse::new("header bombs", Deed::Answered((0..200).flat_map(bombs).collect())),
        frames("ping", &frame(wire::PING, 0, 0, b"12345678")),
        frames("settings", &frame(wire::SETTINGS, 0, 0, &[])),
        frames("changing settings", &frame(wire::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        frames("priority", &frame(wire::PRIORITY, 0, 5, &[0, 0, 0, 3, 16])),
        frames("window updates", &frame(wire::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        frames("unknown frames", &frame(0xfe, 0, 0, b"grease")),
        frames("empty data", &frame(wire::DATA, 0, 1, &[])),
        frames("tiny data", &frame(wire::DATA, 0, 1, b"x")),
        Abuse::unread(),
    ]
}

/// A thread of abusers, or of honest clients, that does what it is told until it is dropped.
pub(crate) struct Crowd {
    orders: UnboundedSender<Order>,
    caller: Caller,
}

/// Where they come from: spillway remembers who offended.
const HONEST_SOURCE: [u8; 4] = [127, 0, 0, 3];
const ABUSERS_SOURCE: [u8; 4] = [127, 0, 0, 2];

struct Order {
    deed: Deed,
    caller: Caller,
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    ended: std::sync::mpsc::Sender<()>,
}

/// A deed that is being done over and over.
pub(crate) struct Running {
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    ended: std::sync::mpsc::Receiver<()>,
}

impl Crowd {
    /// `caller` is who they are.
    pub(crate) fn new(caller: Caller) -> Self {
        let (orders, mut taken) = unbounded_channel::<Order>();
        thread::spawn(move || {
            // On Linux a thread has a niceness of its own.
            nice(19).expect("anybody may be nicer");
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                while let Some(order) = taken.recv().await {
                    let order = Arc::new(order);
                    let all = (0..ABUSERS).map(|_| repeat(Arc::clone(&order)));
                    futures_util::future::join_all(all).await;
                    // Whoever waits for it may be gone.
                    let _ = order.ended.send(());
                }
            });
        });
        Self { orders, caller }
    }

    /// Begins.
    pub(crate) fn begin(&self, deed: &Deed) -> Running {
        let source = if deed.is_honest() { HONEST_SOURCE } else { ABUSERS_SOURCE };
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, ended) = std::sync::mpsc::channel();
        let order = Order {
            deed: deed.clone(),
            caller: self.caller.clone().from(source),
            over: Arc::clone(&over),
            done: Arc::clone(&done),
            ended: told,
        };
        assert!(self.orders.send(order).is_ok(), "the crowd's thread runs");
        Running { over, done, ended }
    }
}

impl Running {
    /// Connections that were let in and played to their end so far.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Tells them to stop, and waits until they have.
    pub(crate) fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.ended.recv_timeout(2 * PATIENCE).expect("the crowd goes when it is told to");
    }
}

async fn repeat(order: Arc<Order>) {
    while !order.over.load(Ordering::Relaxed) {
        if once(&order.deed, &order.caller).await.is_ok() {
            order.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An error when the connection is turned away.
async fn once(deed: &Deed, caller: &Caller) -> io::Result<()> {
    match deed {
        Deed::CutOff(bytes) => {
            let mut raw = Raw::try_connect_with(caller, &[]).await?;
            raw.try_send(bytes, PATIENCE).await;
            raw.rest().await;
        }
        Deed::Answered(bytes) => {
            let mut raw = Raw::try_connect_with(caller, &[]).await?;
            let ping = frame(wire::PING, 0, 0, b"are they");
            raw.try_send(&[&bytes[..], &ping[..]].concat(), PATIENCE).await;
            while let Some(received) = raw.next_within(PATIENCE).await {
                if received.kind == wire::PING && received.flags & wire::END != 0 {
                    break;
                }
            }
        }
        Deed::Held(bytes, time) => {
            // SETTINGS_INITIAL_WINDOW_SIZE: 0.
            let mut raw = Raw::try_connect_with(caller, &[(4, 0)]).await?;
            raw.try_send(bytes, PATIENCE).await;
            tokio::time::sleep(*time).await;
        }
        Deed::Read(bytes, streams) => {
            // Windows that need no update before the end: SETTINGS_INITIAL_WINDOW_SIZE and that of the connection.
            let mut raw = Raw::try_connect_with(caller, &[(4, 1 << 20)]).await?;
            let window = frame(wire::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
            raw.try_send(&[&window[..], &bytes[..]].concat(), PATIENCE).await;
            answers(&mut raw, *streams).await;
        }
        Deed::Honest(requests) => honest(*requests, caller).await?,
    }
    Ok(())
}

async fn honest(requests: usize, caller: &Caller) -> io::Result<()> {
    let mut raw = Raw::try_connect_with(caller, &[]).await?;
    let last = u32::try_from(requests).expect("a few") * 2 - 1;
    let bytes: Vec<u8> = (1..=last)
        .step_by(2)
        .flat_map(|id| {
            let mut fields = request("GET", "/honest");
            let filler = "h".repeat(HONEST_BYTES - 170);
            fields.extend([
                field("accept", "application/json"),
                field("user-agent", "kubelet/v1.36.0"),
                field("x-filler", filler),
            ]);
            ask(id, &fields)
        })
        .collect();
    raw.try_send(&bytes, PATIENCE).await;
    answers(&mut raw, requests).await;
    Ok(())
}

/// Reads until so many streams have ended.
async fn answers(raw: &mut Raw, streams: usize) {
    let mut left = streams;
    while left > 0
        && let Some(received) = raw.next_within(PATIENCE).await
    {
        left -= usize::from(received.ends());
    }
}
