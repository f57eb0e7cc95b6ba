//! `tramline top`: what goes between workloads at this moment.

mod meter;
mod screen;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::client;
use super::exit::{Exit, Failure};
use super::output::{self, Colours, Output, OutputArgs, Table};
use crate::observe::admin::api::TrafficReport;
pub(super) use meter::Frame;
use meter::Meter;
#[cfg(test)]
pub(super) use meter::Rate;
use screen::Screen;

/// From one look at the agent to the next.
const REFRESH: Duration = Duration::from_secs(1);
/// How soon a key is noticed.
const KEYS: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Print one frame and end, as also where standard output is no terminal
    #[arg(long)]
    once: bool,

    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(socket: &Path, args: &TopArgs) -> Result<(), Failure> {
    let live = !args.once && args.output.output == Output::Table && io::stdout().is_terminal();
    if live { watch(socket) } else { once(socket, args) }
}

/// Rates need two looks.
fn once(socket: &Path, args: &TopArgs) -> Result<(), Failure> {
    let mut meter = Meter::default();
    meter.measure(look(socket)?, Instant::now());
    thread::sleep(REFRESH);
    let frame = meter.measure(look(socket)?, Instant::now());
    output::show_list(args.output.output, &frame, "connections yet", |_| table(&frame))
}

fn look(socket: &Path) -> Result<TrafficReport, Failure> {
    client::get(socket, "/traffic")
}

fn table(frame: &Frame) -> Table {
    let mut table = Table::new(&meter::HEADER);
    for rate in &frame.pairs {
        table.row(rate.cells().to_vec());
    }
    table
}

/// Draws until somebody quits. The screen goes back to what it was also after an error or a panic.
fn watch(socket: &Path) -> Result<(), Failure> {
    // An agent that is not there is said on the ordinary screen.
    look(socket)?;
    let terminal_failed = |error: io::Error| Failure::new(Exit::Failure, format!("terminal: {error}"));
    let mut terminal = ratatui::try_init().map_err(terminal_failed)?;
    let done = draw(&mut terminal, &looks(socket.to_owned()));
    ratatui::restore();
    done.map_err(terminal_failed)
}

/// Asks the agent again and again, beside the screen: an agent that is slow must not make the keys slow.
fn looks(socket: PathBuf) -> Receiver<Result<TrafficReport, Failure>> {
    let (send, receive): (SyncSender<_>, _) = sync_channel(1);
    thread::spawn(move || {
        while send.send(look(&socket)).is_ok() {
            thread::sleep(REFRESH);
        }
    });
    receive
}

fn draw(terminal: &mut DefaultTerminal, looks: &Receiver<Result<TrafficReport, Failure>>) -> io::Result<()> {
    let mut meter = Meter::default();
    let mut screen = Screen::new(Colours::of_stdout());
    loop {
        match looks.try_recv() {
            Ok(Ok(report)) => screen.show(meter.measure(report, Instant::now())),
            Ok(Err(failure)) => screen.trouble(failure.what),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                return Err(io::Error::other("nobody asks the agent any more"));
            }
        }
        terminal.draw(|frame| screen.draw(frame))?;
        if event::poll(KEYS)? && quits(&mut screen, &event::read()?) {
            return Ok(());
        }
    }
}

fn quits(screen: &mut Screen, event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        // The terminal is in raw mode: nobody else turns this into a signal.
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('s') => screen.next_order(),
        KeyCode::Down | KeyCode::Char('j') => screen.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => screen.scroll(-1),
        _ => {}
    }
    false
}
