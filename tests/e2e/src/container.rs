//! A process as a container runs it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tramline_harness::net::{Net, Pod};
use tramline_harness::programs;

/// Drops everything but CAP_NET_RAW, which containerd leaves to every container.
const AS_CONTAINER: &str = "--reuid 1000 --regid 1000 --clear-groups --bounding-set=-all,+net_raw \
                            --inh-caps=-all,+net_raw --ambient-caps=-all,+net_raw --";

/// Runs the test application as user 1000 with CAP_NET_RAW and no other capability.
///
/// # Errors
/// It ended badly or not within two minutes.
pub fn as_container(net: &Net, pod: &Pod, args: &str) -> Result<Vec<Value>> {
    let mut words: Vec<String> = AS_CONTAINER.split_whitespace().map(str::to_owned).collect();
    words.push(programs::testapp()?.display().to_string());
    words.extend(args.split_whitespace().map(str::to_owned));
    let process = net.start(pod, Path::new("/usr/bin/setpriv"), &words)?;
    process
        .finish(Duration::from_secs(120))
        .with_context(|| args.to_owned())
}
