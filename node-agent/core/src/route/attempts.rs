//! How long one connection goes on trying the endpoints of a Service.

use std::net::SocketAddr;
use std::time::Duration;

/// Endpoints that one connection tries, at most.
pub const MOST: usize = 3;

/// The attempts of one connection: one deadline for all of them, and of what is left of it a fair share for each that
/// may still follow, so that the first black hole does not use it up. Times are counted from any fixed moment.
#[derive(Debug, Clone)]
pub struct Attempts {
    ends: Duration,
    tried: Vec<SocketAddr>,
}

/// Why no other endpoint is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GaveUp {
    /// There is no other.
    #[error("no other endpoint is ready")]
    NothingLeft,
    /// [`MOST`] were tried.
    #[error("{MOST} endpoints were tried")]
    TriedEnough,
    /// The deadline has passed.
    #[error("the time for all attempts is over")]
    OutOfTime,
    /// The Service's retry budget is used up.
    #[error("the Service's retry budget is used up")]
    OutOfBudget,
}

impl Attempts {
    /// Begins now and ends `within`.
    pub fn new(now: Duration, within: Duration) -> Self {
        Self {
            ends: now + within,
            tried: Vec::new(),
        }
    }

    /// The endpoints that failed.
    pub fn tried(&self) -> &[SocketAddr] {
        &self.tried
    }

    /// How long the next endpoint is waited for, if `alternatives` others could be tried after it.
    pub fn share(&self, now: Duration, alternatives: usize) -> Duration {
        let more = alternatives.min((MOST - 1).saturating_sub(self.tried.len()));
        let parts = u32::try_from(more + 1).unwrap_or(u32::MAX);
        self.ends.saturating_sub(now) / parts
    }

    /// An endpoint failed; `budget` is asked for a retry if nothing else stands against one.
    ///
    /// # Errors
    /// Why the connection has failed with it.
    pub fn failed(
        &mut self,
        endpoint: SocketAddr,
        now: Duration,
        alternatives: usize,
        budget: impl FnOnce() -> bool,
    ) -> Result<(), GaveUp> {
        self.tried.push(endpoint);
        if alternatives == 0 {
            Err(GaveUp::NothingLeft)
        } else if self.tried.len() >= MOST {
            Err(GaveUp::TriedEnough)
        } else if now >= self.ends {
            Err(GaveUp::OutOfTime)
        } else if !budget() {
            Err(GaveUp::OutOfBudget)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Attempts, GaveUp, MOST};
    use std::time::Duration;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn attempts_share_one_deadline() {
        let mut attempts = Attempts::new(s(100), s(15));
        let address = "10.0.0.1:80".parse().unwrap();
        assert_eq!(attempts.share(s(100), 0), s(15));
        assert_eq!(attempts.share(s(100), 1), Duration::from_millis(7_500));
        assert_eq!(attempts.share(s(100), 1000), s(5));
        // A refusal costs no time, and the next ones get what is left.
        assert_eq!(attempts.failed(address, s(100), 5, || true), Ok(()));
        assert_eq!(attempts.share(s(100), 4), Duration::from_millis(7_500));
        assert_eq!(attempts.failed(address, s(110), 4, || true), Ok(()));
        assert_eq!(attempts.share(s(110), 3), s(5));
        assert_eq!(
            attempts.failed(address, s(110), 3, || true),
            Err(GaveUp::TriedEnough)
        );
        assert_eq!((attempts.tried().len(), attempts.share(s(116), 0)), (MOST, s(0)));
    }

    #[test]
    fn every_end_has_its_reason_and_only_a_real_retry_takes_from_the_budget() {
        let address = "10.0.0.1:80".parse().unwrap();
        let end = |now, alternatives, budget: &dyn Fn() -> bool| {
            Attempts::new(s(0), s(15)).failed(address, now, alternatives, budget)
        };
        let never = || panic!("asked for a retry that could not be made");
        assert_eq!(end(s(1), 0, &never), Err(GaveUp::NothingLeft));
        assert_eq!(end(s(15), 1, &never), Err(GaveUp::OutOfTime));
        assert_eq!(end(s(1), 1, &|| false), Err(GaveUp::OutOfBudget));
        assert_eq!(end(s(1), 1, &|| true), Ok(()));
    }
}
