//! Why a connection was cut, told to the other end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tramline_core::counters::ByteCounters;
use tramline_core::reason::Reason;

use super::support::{Rig, application, echo};
use crate::tunnel::{RelayEnd, Side, TunnelSettings, relay};

/// The source's end of a connection that the destination's agent cuts for `reason`.
async fn cut_for(reason: Reason) -> RelayEnd {
    let rig = Rig::new(TunnelSettings::default());
    let echo = echo().await;
    let (address, _server) = rig
        .server_with(move |request| async move {
            let application = TcpStream::connect(echo).await.unwrap();
            let stream = request.accept().unwrap();
            let reset = stream.reset_with();
            let counters = ByteCounters::default();
            let mut relay = Box::pin(relay(application, stream, Side::Destination, &counters));
            let cut = tokio::time::timeout(Duration::from_millis(200), &mut relay).await;
            assert!(cut.is_err());
            reset.reason(reason);
        })
        .await;
    let (mut client, relayed) = rig.client(address).await;
    client.write_all(b"said before").await.unwrap();
    client.read_exact(&mut [0; 11]).await.unwrap();
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    relayed.await.unwrap()
}

#[tokio::test]
async fn a_connection_cut_by_a_policy_is_a_denial_at_the_source_too() {
    let end = cut_for(Reason::PolicyDenied).await;
    assert_eq!(end.reason, Reason::PolicyDenied);
    assert!(end.detail.unwrap().contains("destination"));
    assert_eq!(
        cut_for(Reason::UnknownWorkload).await.reason,
        Reason::UnknownWorkload
    );
    assert_eq!(
        cut_for(Reason::Internal).await.reason,
        Reason::ResetByDestination,
        "a reason without a code"
    );
}

#[tokio::test]
async fn a_client_cannot_make_its_reset_look_like_a_denial() {
    let rig = Rig::new(TunnelSettings::default());
    let application = application(|mut tcp| async move {
        let _ = tcp.read(&mut [0]).await;
    })
    .await;
    let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let (address, _server) = rig
        .server_with(move |request| {
            let told = told.clone();
            async move {
                let application = TcpStream::connect(application).await.unwrap();
                let stream = request.accept().unwrap();
                let end = relay(application, stream, Side::Destination, &ByteCounters::default()).await;
                told.send(end).unwrap();
            }
        })
        .await;
    let stream = rig.open(address).await.unwrap();
    stream.reset_with().reason(Reason::PolicyDenied);
    stream.reset();
    let end = tokio::time::timeout(Duration::from_secs(10), ends.recv()).await;
    assert_eq!(end.unwrap().unwrap().reason, Reason::ResetBySource);
}
