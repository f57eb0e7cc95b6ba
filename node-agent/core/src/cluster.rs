//! The name of a cluster, as Istio's `clusterID`: for telemetry, never for a decision.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Long enough for the ARN of an EKS cluster, whose name may have 100 characters.
const LONGEST: usize = 200;

/// A name of visible ASCII characters, 1 to 200 of them: a peer can tell one, so it is bounded and prints as one word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(Arc<str>);

/// A text that names no cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("1 to {LONGEST} visible ASCII characters")]
pub struct NotAClusterName;

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl Default for ClusterName {
    /// Istio's default.
    fn default() -> Self {
        Self("Kubernetes".into())
    }
}

impl FromStr for ClusterName {
    type Err = NotAClusterName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(NotAClusterName)
        }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_one_visible_word() {
        let arn = "arn:aws:eks:eu-central-1:123456789012:cluster/shop";
        for good in ["Kubernetes", "a", arn, &"x".repeat(LONGEST)] {
            assert_eq!(good.parse::<ClusterName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            " ",
            "a b",
            "a\n",
            "caf\u{e9}",
            "\u{202e}",
            &"x".repeat(LONGEST + 1),
        ] {
            assert_eq!(bad.parse::<ClusterName>(), Err(NotAClusterName), "{bad:?}");
        }
    }
}
