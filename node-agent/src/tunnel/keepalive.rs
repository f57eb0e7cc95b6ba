//! PING keepalive and idle release of one connection, client or server.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use super::TunnelSettings;

/// Why a connection should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lapse {
    /// A PING was not answered in time.
    Lost,
    /// No streams for the idle time.
    Idle,
}

/// One timer for both duties.
pub(super) struct Keepalive {
    ping: Option<PingPong>,
    waiting: bool,
    sent: u64,
    answered: bool,
    sent_at: Instant,
    /// Of the answer while waiting, else of the next PING.
    due: Instant,
    timer: Pin<Box<Sleep>>,
    interval: Duration,
    timeout: Duration,
    suspect: Duration,
    idle: Duration,
}

impl Keepalive {
    /// For a client: the first PING goes out with the first request, to be answered within `settings.http2`.
    pub(super) fn client(ping: Option<PingPong>, settings: &TunnelSettings) -> Self {
        let mut keepalive = Self::server(ping, settings);
        keepalive.send(settings.http2);
        keepalive
    }

    /// For a server: the first PING goes out after an interval.
    pub(super) fn server(ping: Option<PingPong>, settings: &TunnelSettings) -> Self {
        let now = Instant::now();
        let due = now + settings.ping_interval;
        Self {
            ping,
            waiting: false,
            sent: 0,
            answered: false,
            sent_at: now,
            due,
            timer: Box::pin(sleep_until(due)),
            interval: settings.ping_interval,
            timeout: settings.ping_timeout,
            suspect: settings.suspect,
            idle: settings.idle,
        }
    }

    /// The peer speaks HTTP/2 and its SETTINGS are known: they come before the answer to any PING.
    pub(super) fn answered(&self) -> bool {
        self.answered
    }

    /// PINGs so far: when the number has changed, the connection has something to write.
    pub(super) fn pings_sent(&self) -> u64 {
        self.sent
    }

    /// A PING has gone unanswered for longer than a peer that lives takes.
    pub(super) fn is_overdue(&self) -> bool {
        self.waiting && self.sent_at.elapsed() >= self.suspect
    }

    /// Sends a PING now unless one is on its way.
    pub(super) fn probe(&mut self) {
        if !self.waiting {
            self.send(self.timeout);
        }
    }

    /// Poll beside the connection, which carries the PINGs; `idle_since` while there are no streams.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, idle_since: Option<Instant>) -> Poll<Lapse> {
        loop {
            if self.waiting
                && let Some(ping) = &mut self.ping
                && let Poll::Ready(answer) = ping.poll_pong(cx)
            {
                if answer.is_err() {
                    // The connection itself reports its end.
                    self.ping = None;
                } else {
                    self.answered = true;
                }
                self.waiting = false;
                self.due = Instant::now() + self.interval;
            }
            let idle_at = idle_since.map(|since| since + self.idle);
            let mut next = idle_at.map_or(self.due, |at| at.min(self.due));
            let overdue_at = self.sent_at + self.suspect;
            if self.waiting && overdue_at > Instant::now() {
                next = next.min(overdue_at);
            }
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if idle_at.is_some_and(|at| at <= now) {
                return Poll::Ready(Lapse::Idle);
            }
            if self.due <= now {
                if self.waiting {
                    return Poll::Ready(Lapse::Lost);
                }
                self.send(self.timeout);
            }
        }
    }

    fn send(&mut self, timeout: Duration) {
        if let Some(ping) = &mut self.ping {
            self.waiting = ping.send_ping(Ping::opaque()).is_ok();
            self.sent += u64::from(self.waiting);
        }
        self.sent_at = Instant::now();
        self.due = self.sent_at + if self.waiting { timeout } else { self.interval };
    }
}
