//! Connections that were open when a pod was enrolled: the programs never see them, so they go on without the mesh.
//! Those that would be refused today are ended after a grace.

use super::LocalPod;
use crate::broker::{Broker, OpenSocket, PodRows};
use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tramline_common::map::plaintext;

/// Time for clients to come back through the mesh by themselves.
const GRACE: Duration = Duration::from_secs(30);

/// Waits for the grace, then ends the inbound ones on ports that refuse plaintext.
pub(super) async fn close_refused(broker: Arc<Broker>, pod: Arc<LocalPod>, open: Vec<OpenSocket>) {
    tokio::time::sleep(GRACE).await;
    pod.end_grace();
    let refused = {
        let rows = pod.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match rows.as_ref() {
            Some(rows) => refused(rows, open),
            // After a failed update the kernel refuses all plaintext.
            None => open.into_iter().filter(|socket| socket.inbound).collect(),
        }
    };
    if refused.is_empty() {
        return;
    }
    match broker.close(pod.id, &refused) {
        Ok(closed) => {
            pod.already_open.fetch_sub(closed, Ordering::Relaxed);
            tracing::info!(pod = %pod.uid, closed, "ended connections older than the pod's enrolment that are refused today");
        }
        Err(error) => {
            tracing::warn!(pod = %pod.uid, %error, "cannot end connections older than the pod's enrolment")
        }
    }
}

/// An outgoing connection has an ephemeral local port, for which no application port's row speaks: where its other end
/// requires mutual TLS, the agent there ends it.
fn refused(rows: &PodRows, open: Vec<OpenSocket>) -> Vec<OpenSocket> {
    open.into_iter()
        .filter(|socket| {
            let port = socket.local.port();
            socket.inbound
                && !rows.excluded_inbound_ports.contains(&port)
                && *rows.plaintext.get(&port).unwrap_or(&rows.plaintext_default) == plaintext::DROP
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::refused;
    use crate::broker::{OpenSocket, PodRows};
    use tramline_common::map::plaintext;

    fn socket(port: u16, inbound: bool) -> OpenSocket {
        OpenSocket {
            local: ([10, 0, 0, 1], port).into(),
            remote: ([10, 0, 0, 9], 40_000).into(),
            cookie: [1; 8],
            inbound,
        }
    }

    #[test]
    fn only_inbound_connections_to_closed_ports_are_ended() {
        let mut rows = PodRows {
            plaintext_default: plaintext::DROP,
            ..PodRows::default()
        };
        rows.plaintext.insert(80, plaintext::PASS);
        rows.excluded_inbound_ports.insert(81);
        let open = vec![
            socket(80, true),
            socket(81, true),
            socket(82, true),
            socket(50_000, false),
        ];
        assert_eq!(refused(&rows, open), [socket(82, true)]);
        rows.plaintext_default = plaintext::PASS;
        assert!(refused(&rows, vec![socket(82, true)]).is_empty());
    }
}
