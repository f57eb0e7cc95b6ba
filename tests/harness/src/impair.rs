//! A link between nodes that is not a good one: queueing disciplines of `tc`, in both directions.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::net::{LINK, Net};
use crate::netns::Netns;

impl Net {
    /// Puts a discipline on the link between the nodes, in place of the one before: `netem loss 5%`, `tbf rate ...`.
    ///
    /// # Errors
    /// There is one node only, `tc` is missing, or the kernel has no such discipline.
    pub fn impair(&self, discipline: &str) -> Result<()> {
        if self.nodes().len() < 2 {
            bail!("one node has no link to impair");
        }
        // Replacing one kind by another is refused.
        self.repair()?;
        self.on_link(|netns| tc(netns, &format!("qdisc add dev {LINK} root {discipline}")))
    }

    /// Changes the parameters of the discipline that is there.
    ///
    /// # Errors
    /// As [`Net::impair`].
    pub fn impair_otherwise(&self, discipline: &str) -> Result<()> {
        self.on_link(|netns| tc(netns, &format!("qdisc change dev {LINK} root {discipline}")))
    }

    /// Makes the link a good one again.
    ///
    /// # Errors
    /// `tc` is missing.
    pub fn repair(&self) -> Result<()> {
        // A link without a discipline has none to delete.
        self.on_link(|netns| tc_output(netns, &format!("qdisc del dev {LINK} root")).map(drop))
    }

    /// What the disciplines have counted on both sides of the link, in `tc`'s words.
    ///
    /// # Errors
    /// `tc` is missing.
    pub fn link_statistics(&self) -> Result<String> {
        let mut all = String::new();
        for node in self.nodes() {
            let (_, words) = tc_output(&node.netns, &format!("-s qdisc show dev {LINK}"))?;
            all.push_str(&words);
        }
        Ok(all)
    }

    fn on_link(&self, act: impl Fn(&Netns) -> Result<()>) -> Result<()> {
        self.nodes().iter().try_for_each(|node| act(&node.netns))
    }
}

/// Packets that the disciplines of [`Net::link_statistics`] have dropped.
#[must_use]
pub fn dropped(statistics: &str) -> u64 {
    let counts = statistics.split("(dropped ").skip(1);
    counts
        .filter_map(|rest| rest.split(',').next()?.parse::<u64>().ok())
        .sum()
}

/// Whether this kernel has `netem`, which Debian's cloud kernels have as a module.
#[must_use]
pub fn has_netem(net: &Net) -> bool {
    net.impair("netem delay 1ms").is_ok() && net.repair().is_ok()
}

fn tc(netns: &Netns, command: &str) -> Result<()> {
    match tc_output(netns, command)? {
        (true, _) => Ok(()),
        (false, words) => bail!("tc {command} in {}: {words}", netns.name()),
    }
}

fn tc_output(netns: &Netns, command: &str) -> Result<(bool, String)> {
    let output = Command::new("tc")
        .args(["-n", netns.name()])
        .args(command.split_whitespace())
        .output()
        .context("start `tc` (package iproute2)")?;
    let words = [output.stdout, output.stderr].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&words).trim().to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::dropped;

    #[test]
    fn drops_of_both_sides_are_summed() {
        let words = "qdisc tbf 8001: root refcnt 2 rate 8Mbit\n Sent 10 bytes 1 pkt (dropped 3, overlimits 9 requeues 0)\n\
                     qdisc tbf 8001: root\n Sent 10 bytes 1 pkt (dropped 40, overlimits 0 requeues 0)\n";
        assert_eq!(dropped(words), 43);
        assert_eq!(dropped("qdisc noqueue 0: root refcnt 2"), 0);
    }
}
