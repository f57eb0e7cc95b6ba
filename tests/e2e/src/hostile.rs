//! Those who may not get in and try without pause, many at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_harness::net::{Net, Pod};
use tramline_harness::process::Process;

use crate::world::address;

/// For the first attempt to be refused, and for the last ones to end.
const SOON: Duration = Duration::from_secs(30);
/// Attempts under way at once, of each prober.
const AT_ONCE: usize = 16;
/// For one attempt: who is refused is told, and need not find out by waiting.
const LIMIT_MS: u64 = 1000;

/// Probers at work. Dropping it ends them.
#[derive(Debug, Default)]
pub struct Hostile {
    probers: Vec<Prober>,
    addresses: Vec<IpAddr>,
}

#[derive(Debug)]
struct Prober {
    kind: &'static str,
    process: Process,
}

/// What came of all attempts; none was let in.
#[derive(Debug, Default)]
pub struct Tried {
    /// In the time that was asked about.
    pub seconds: f64,
    /// Those that began in that time.
    pub attempts: usize,
    /// By kind of prober, in the whole life of it.
    pub kinds: BTreeMap<&'static str, Results>,
}

/// How many attempts ended how.
pub type Results = BTreeMap<String, usize>;

impl Hostile {
    /// Has `pod` try to reach `to` every so often, and waits until it was refused for the first time.
    ///
    /// # Errors
    /// It does not start, or is not refused.
    pub fn add(
        &mut self,
        kind: &'static str,
        net: &Net,
        pod: &Pod,
        to: SocketAddr,
        interval_ms: u64,
    ) -> Result<()> {
        let probe = format!(
            "probe --to {to} --interval-ms {interval_ms} --timeout-ms {LIMIT_MS} --at-once {AT_ONCE}"
        );
        let mut process = net.app(pod, &probe)?;
        process.wait_json(SOON, is_refused).context(kind)?;
        self.probers.push(Prober { kind, process });
        self.addresses.extend([IpAddr::from(pod.v4), pod.v6.into()]);
        Ok(())
    }

    /// Ends them and counts. `marks` are the moments at which rounds begin, and the one at which the last one ends.
    ///
    /// # Errors
    /// An attempt was let in, or there was a round in which a prober was not refused.
    pub fn finish(&mut self, marks: &[i64]) -> Result<Tried> {
        for prober in &mut self.probers {
            drop(prober.process.stdin());
        }
        let mut tried = Tried::over(marks)?;
        for Prober { kind, process } in self.probers.drain(..) {
            let lines = process.finish_and_clear(SOON).context(kind)?;
            tried.count(kind, &lines, marks).context(kind)?;
        }
        Ok(tried)
    }

    /// Whether somebody among them has this address.
    ///
    /// # Errors
    /// It is none.
    pub fn has(&self, peer: &Value) -> Result<bool> {
        Ok(self.addresses.contains(&address(peer)?.ip()))
    }
}

/// Told that it may not, rather than left without an answer, or without a port to try from.
fn is_refused(probe: &Value) -> bool {
    matches!(
        probe["result"].as_str(),
        Some("EACCES" | "ECONNREFUSED" | "ECONNRESET" | "EPIPE" | "UnexpectedEof")
    )
}

/// Tried at all.
fn is_attempt(probe: &Value) -> bool {
    is_refused(probe) || probe["result"] == "timeout"
}

impl Tried {
    fn over(marks: &[i64]) -> Result<Self> {
        let (begin, end) = marks.first().zip(marks.last()).context("no rounds")?;
        Ok(Self {
            seconds: Duration::from_nanos(u64::try_from(end - begin)?).as_secs_f64(),
            ..Self::default()
        })
    }

    /// Adds what one prober reported.
    fn count(&mut self, kind: &'static str, lines: &[Value], marks: &[i64]) -> Result<()> {
        let mut rounds: Vec<_> = marks.windows(2).map(|of| (of[0]..of[1], 0_usize)).collect();
        let results = self.kinds.entry(kind).or_default();
        for line in lines.iter().filter(|line| line["event"] == "probe") {
            let at = |key: &str| line[key].as_i64().with_context(|| format!("no {key} in {line}"));
            let (begun, ended) = (at("begun_ns")?, at("ended_ns")?);
            let result = line["result"].as_str().context("an attempt without a result")?;
            ensure!(result != "ok", "was let in: {line}");
            *results.entry(result.to_owned()).or_default() += 1;
            let Some((time, refused)) = rounds.iter_mut().find(|(time, _)| time.contains(&begun)) else {
                continue;
            };
            self.attempts += usize::from(is_attempt(line));
            // One that begins in a round and ends in another says little of either.
            *refused += usize::from(is_refused(line) && time.contains(&ended));
        }
        let spared = rounds.iter().position(|(_, refused)| *refused == 0);
        ensure!(
            spared.is_none(),
            "not refused once in round {spared:?}: {rounds:?}"
        );
        Ok(())
    }

    /// Attempts a second, of all probers.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn rate(&self) -> f64 {
        self.attempts as f64 / self.seconds
    }

    /// How many attempts of this kind of prober ended so.
    #[must_use]
    pub fn ended(&self, kind: &str, result: &str) -> usize {
        let results = self.kinds.get(kind);
        results
            .and_then(|results| results.get(result))
            .copied()
            .unwrap_or(0)
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (attempts, seconds, rate) = (self.attempts, self.seconds, self.rate());
        write!(
            f,
            "{attempts} attempts in {seconds:.1} s ({rate:.0}/s), none let in"
        )?;
        for (kind, results) in &self.kinds {
            write!(f, "\n  {kind}: {results:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn probe(begun_ns: i64, ended_ns: i64, result: &str) -> Value {
        json!({"event": "probe", "begun_ns": begun_ns, "ended_ns": ended_ns, "result": result})
    }

    fn count(lines: &[Value]) -> Result<Tried> {
        let marks = [1_000_000_000, 2_000_000_000, 3_000_000_000];
        let mut tried = Tried::over(&marks)?;
        tried.count("kind", lines, &marks)?;
        Ok(tried)
    }

    #[test]
    fn attempts_count_in_the_round_in_which_they_begin_and_end() {
        let refused = |begun: i64, ended: i64| probe(begun * 1_000_000, ended * 1_000_000, "EACCES");
        let both = [refused(900, 950), refused(1_500, 1_501), refused(2_500, 2_501)];
        let tried = count(&both).expect("refused in both rounds");
        assert_eq!((tried.attempts, tried.ended("kind", "EACCES")), (2, 3));
        assert!((tried.rate() - 1.0).abs() < 1e-9, "two in two seconds: {tried}");
        assert!(count(&both[..2]).is_err(), "spared in the second round");
        assert!(
            count(&[refused(1_500, 1_501), refused(1_999, 2_001)]).is_err(),
            "refused across the end of a round"
        );
    }

    #[test]
    fn to_be_let_in_fails_and_to_hear_nothing_is_no_refusal() {
        let refused = [1_500_000_000, 2_500_000_000].map(|at| probe(at, at, "ECONNREFUSED"));
        let one_more = |result| {
            let last = probe(5_000_000_000, 5_000_000_000, result);
            count(&[refused[0].clone(), refused[1].clone(), last])
        };
        assert!(one_more("ok").is_err(), "let in after the rounds");
        assert!(one_more("timeout").is_ok());
        for result in ["timeout", "EADDRNOTAVAIL"] {
            let unanswered = probe(2_500_000_000, 2_500_000_000, result);
            assert!(count(&[refused[0].clone(), unanswered]).is_err(), "{result}");
        }
        let not_tried = probe(2_600_000_000, 2_600_000_000, "EADDRNOTAVAIL");
        let [one, other] = refused;
        assert_eq!(count(&[one, other, not_tried]).expect("refused").attempts, 2);
    }
}
