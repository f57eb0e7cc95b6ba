//! Clients that must not notice what is done to the mesh meanwhile: new connections one after the other, and long ones
//! over which bytes go back and forth.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::net::{Net, Pod};
use crate::process::Process;

/// Long connections from one client to one server.
const STREAMS: u64 = 5;
/// Between two new connections of one client to one server.
const INTERVAL_MS: u64 = 20;
/// For one request and one message: longer is a failure.
const LIMIT_MS: u64 = 10_000;
/// For a client to be answered for the first time.
const START: Duration = Duration::from_secs(15);
/// For the clients to end once told.
const END: Duration = Duration::from_secs(30);

/// All clients at work. Dropping it ends them.
#[derive(Debug, Default)]
pub struct Load {
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    what: String,
    probe: Process,
    stream: Option<Process>,
}

/// What was done, and that nothing failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Done {
    /// Requests answered, each on a connection of its own.
    pub requests: usize,
    /// Long connections that lived from the beginning to the end.
    pub streams: u64,
    /// Messages echoed on them.
    pub messages: u64,
}

impl Load {
    /// Adds a client in `pod` of the echo server at `to`, and waits for its first answer.
    ///
    /// # Errors
    /// It does not start, or is not answered.
    pub fn add(&mut self, net: &Net, pod: &Pod, to: SocketAddr) -> Result<()> {
        let stream = format!("stream --to {to} --count {STREAMS} --timeout-ms {LIMIT_MS}");
        let mut stream = net.app(pod, &stream)?;
        stream.wait_event("streaming", START)?;
        self.add_requests(net, pod, to)?;
        if let Some(client) = self.clients.last_mut() {
            client.stream = Some(stream);
        }
        Ok(())
    }

    /// The same without long connections.
    ///
    /// # Errors
    /// See [`Load::add`].
    pub fn add_requests(&mut self, net: &Net, pod: &Pod, to: SocketAddr) -> Result<()> {
        let probe = format!("probe --to {to} --interval-ms {INTERVAL_MS} --timeout-ms {LIMIT_MS}");
        let mut probe = net.app(pod, &probe)?;
        probe.wait_event("probe", START)?;
        self.clients.push(Client {
            what: format!("{} to {to}", pod.name),
            probe,
            stream: None,
        });
        Ok(())
    }

    /// The requests so far.
    ///
    /// # Errors
    /// One has failed.
    pub fn requests(&self) -> Result<usize> {
        self.clients.iter().map(Client::requests).sum()
    }

    /// Ends it, and counts.
    ///
    /// # Errors
    /// A request failed, a long connection was cut, or there was hardly any load.
    pub fn finish(self) -> Result<Done> {
        let mut done = Done::default();
        for mut client in self.clients {
            drop(client.probe.stdin());
            client.probe.wait(END)?;
            done.requests += client.requests()?;
            let Some(mut stream) = client.stream else {
                continue;
            };
            drop(stream.stdin());
            let lines = stream.finish(END)?;
            let end = lines.last().context("no result of the long connections")?;
            ensure!(
                end["whole"] == STREAMS,
                "{}: long connections were cut: {end}",
                client.what
            );
            done.streams += STREAMS;
            done.messages += end["messages"].as_u64().context("no count of messages")?;
        }
        ensure!(
            done.requests > 10 && done.messages >= 2 * done.streams,
            "hardly any load: {done:?}"
        );
        Ok(done)
    }
}

impl Client {
    fn requests(&self) -> Result<usize> {
        let lines = self.probe.json()?;
        let probes = || lines.iter().filter(|line| line["event"] == "probe");
        let failed: Vec<&Value> = probes().filter(|line| line["result"] != "ok").collect();
        if let Some(first) = failed.first() {
            let (what, failed, all) = (&self.what, failed.len(), probes().count());
            bail!("{what}: {failed} of {all} requests failed, the first: {first}");
        }
        Ok(probes().count())
    }
}
