//! Certificates come and go.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tramline_harness::load::Load;
use tramline_harness::mesh::identity;
use tramline_harness::rotations::Rotations;

use crate::screen;
use crate::stage::{CERTIFICATE_LIFE, Stage};

/// Of each certificate.
const RENEWALS: usize = 2;
/// Twice the time in which they are due.
const LIMIT: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_millis(500);
/// Looks between two lines about them.
const LOOKS: usize = 5;

/// New connections and long ones in both directions while each certificate is renewed twice.
pub(crate) fn renewed(stage: &mut Stage) -> Result<String> {
    let net = &stage.mesh.net;
    let _servers = [
        net.serve(&stage.v1, "server --port 5006 --quiet")?,
        net.serve(&stage.v2, "server --port 5006 --quiet")?,
    ];
    let mut load = Load::default();
    load.add(net, &stage.sleep, stage.v2.at4(5006))?;
    load.add(net, &stage.client, stage.v1.at6(5006))?;
    let followed = [(1, "sleep"), (1, "helloworld"), (2, "client"), (2, "helloworld")];
    let mut rotations = Rotations::default();
    for (node, account) in followed {
        rotations.follow(node, identity(account));
    }
    let begun = Instant::now();
    rotations.look(&stage.mesh)?;
    for look in 1.. {
        if rotations.fewest() >= RENEWALS {
            break;
        }
        ensure!(
            begun.elapsed() < LIMIT,
            "renewed {:?} times in {} s",
            rotations.counts(),
            LIMIT.as_secs()
        );
        std::thread::sleep(LOOK);
        rotations.look(&stage.mesh)?;
        if look % LOOKS == 0 {
            screen::step(&format!(
                "{:>2} s: {} requests answered, certificates renewed {} of {RENEWALS} times",
                begun.elapsed().as_secs(),
                load.requests()?,
                rotations.fewest()
            ));
        }
    }
    let took = begun.elapsed().as_secs();
    let done = load.finish()?;
    let names: Vec<_> = followed
        .iter()
        .zip(rotations.counts())
        .map(|((node, account), count)| format!("{account} of node{node} {count} times"))
        .collect();
    Ok(format!(
        "{took} s, certificates that live {} s: {} requests and {} messages on {} long connections, none failed; renewed: {}",
        CERTIFICATE_LIFE.as_secs(),
        done.requests,
        done.messages,
        done.streams,
        names.join(", ")
    ))
}
