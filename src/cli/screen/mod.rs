//! What does an operator see and type while a storm is on? `spillway top` at a terminal.
//!
//! One thread reads keys and draws, another asks the proxy once a second; they talk over bounded channels, so that a proxy
//! that hangs freezes no key. `model` says what a key does and `draw` what is seen: neither does I/O nor reads a clock.
//!
//! The terminal is given back as it was, however it ends: a key, a signal, a panic.

mod asker;
mod command;
mod dialog;
mod draw;
mod layout;
mod model;
mod panels;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};

use self::asker::{Asker, News, Question};
use self::model::{Act, Model};
use super::Ending;
use super::socket::{Failure, Where};
use super::top::By;
use crate::admin::wire::{Problem, code};
use crate::clock;
use crate::config::Colour;

/// How long a key is waited for before the screen is drawn anew: ages in seconds have to move.
const KEY_WITHIN: Duration = Duration::from_millis(200);
/// Questions and answers under way at a time. A key that finds them full is told so.
const CHANNEL_MAX: usize = 8;

/// Shows the screen until the operator leaves it.
pub(super) fn run(at: &Where, by: By, colour: Colour) -> Result<Ending, Failure> {
    let mut asker = Asker::new(at, by);
    // Before the terminal changes: who asks at the wrong place reads it as from every other command.
    let first = asker.look()?;
    let mut model = Model::new(at.said(), by, colour, clock::now());
    model.hear(News::Seen(Box::new(first)), clock::now());
    let ended = ended_by_signal();
    let (ask, questions) = sync_channel(CHANNEL_MAX);
    let (tell, news) = sync_channel(CHANNEL_MAX);
    // It ends when the other end of its channels is gone; nobody waits for a question that hangs.
    std::thread::spawn(move || asker.live(&questions, &tell));
    let mut screen = Screen::open().map_err(|error| unusable(&error))?;
    let shown = screen.show(&mut model, &ask, &news, &ended);
    drop(screen);
    shown.map(|()| Ending::Fine).map_err(|error| unusable(&error))
}

fn unusable(error: &io::Error) -> Failure {
    let message = format!("this terminal cannot be used as a screen: {error}");
    Failure::new(
        Ending::Failed,
        Problem::new(code::SCREEN, message, "spillway top --once prints the same once"),
    )
}

/// Becomes true when the process is asked to end: it must not go before the terminal is what it was. Returns once signals
/// are listened to, so that none comes in between.
fn ended_by_signal() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    let (listening, listens) = sync_channel(1);
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            // Without handlers the signals end the process as they always did.
            let (Ok(mut end), Ok(mut hang), Ok(mut interrupt)) = (
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
                signal(SignalKind::interrupt()),
            ) else {
                return;
            };
            drop(listening);
            tokio::select! {
                _ = end.recv() => {}
                _ = hang.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.store(true, Ordering::Relaxed);
        });
    });
    // Nothing is ever sent: it ends when the other end is gone, whether it listens or could not.
    let _: Result<(), _> = listens.recv();
    ended
}

/// The terminal while it is ours.
struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal. A panic gives it back before it is told.
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| ratatui::restore())
    }

    fn show(
        &mut self,
        model: &mut Model,
        ask: &SyncSender<Question>,
        news: &Receiver<News>,
        ended: &AtomicBool,
    ) -> io::Result<()> {
        while !ended.load(Ordering::Relaxed) {
            loop {
                match news.try_recv() {
                    Ok(news) => model.hear(news, clock::now()),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Err(io::Error::other("nobody asks any more")),
                }
            }
            self.0.draw(|frame| draw::draw(model, clock::now(), frame))?;
            if !event::poll(KEY_WITHIN)? {
                continue;
            }
            let Event::Key(key) = event::read()? else { continue };
            if key.kind != KeyEventKind::Press {
                continue;
            }
            match model.key(key, clock::now()) {
                Act::Nothing => {}
                Act::Quit => return Ok(()),
                Act::Ask(question) => match ask.try_send(question) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => model.busy(),
                    Err(TrySendError::Disconnected(_)) => {
                        return Err(io::Error::other("nobody asks any more"));
                    }
                },
            }
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
