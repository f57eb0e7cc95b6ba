//! The local ports of a client, each of which rests for a minute after its connection.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use crate::screen;

/// `TCP_TIMEWAIT_LEN` (Linux: `include/net/tcp.h`).
const REST: Duration = Duration::from_secs(60);
/// Of the 28,232 that Linux chooses from: with more of them at rest, looking for one costs time.
const AT_REST: u64 = 14_000;

/// Connections towards one server that were closed within the last minute.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    closed: VecDeque<(Instant, u64)>,
}

impl Ports {
    /// Waits until `more` connections can be made, and says so.
    pub(crate) fn wait(&mut self, more: u64) {
        let wait = self.wait_for(more, Instant::now());
        if !wait.is_zero() {
            screen::progress(&format!(
                "{} s until the ports of earlier connections have rested",
                wait.as_secs() + 1
            ));
            thread::sleep(wait);
        }
    }

    /// So many were closed just now.
    pub(crate) fn closed(&mut self, count: u64) {
        self.closed.push_back((Instant::now(), count));
    }

    /// How long that is.
    fn wait_for(&mut self, more: u64, now: Instant) -> Duration {
        while self.closed.front().is_some_and(|(at, _)| now >= *at + REST) {
            self.closed.pop_front();
        }
        let mut resting: u64 = self.closed.iter().map(|(_, count)| count).sum();
        let mut wait = Duration::ZERO;
        for (at, count) in &self.closed {
            if resting + more <= AT_REST {
                break;
            }
            wait = (*at + REST).saturating_duration_since(now);
            resting -= count;
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_until_enough_ports_have_rested() {
        let (mut ports, start) = (Ports::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..10 {
            assert_eq!(ports.wait_for(1_400, at(second)), Duration::ZERO, "{second}");
            ports.closed.push_back((at(second), 1_400));
        }
        assert_eq!(ports.wait_for(1_400, at(10)), Duration::from_secs(50));
        assert_eq!(ports.wait_for(2_000, at(10)), Duration::from_secs(51));
        assert_eq!(ports.wait_for(1_400, at(60)), Duration::ZERO);
        assert_eq!(
            ports.wait_for(AT_REST + 1, at(60)),
            Duration::from_secs(9),
            "more than ever: when all have rested"
        );
    }
}
