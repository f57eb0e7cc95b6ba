//! What applications see through a relay is what they would see without one.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tramline_core::counters::ByteCounters;
use tramline_core::reason::Reason;

use super::support::{Rig, pair};
use crate::tunnel::{RelayEnd, TunnelSettings, relay_tcp};

/// How the two applications are connected.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Through {
    Nothing,
    RelayTcp,
    Tunnel,
}

/// A client's and a server's socket, and the source's relay between them.
struct Joined {
    client: TcpStream,
    server: TcpStream,
    relayed: Option<JoinHandle<RelayEnd>>,
    _rig: Option<Rig>,
}

async fn join(through: Through) -> Joined {
    match through {
        Through::Nothing => {
            let (client, server) = pair().await;
            Joined {
                client,
                server,
                relayed: None,
                _rig: None,
            }
        }
        Through::RelayTcp => {
            let (client, source) = pair().await;
            let (destination, server) = pair().await;
            let relay = async move { relay_tcp(source, destination, &ByteCounters::default()).await };
            Joined {
                client,
                server,
                relayed: Some(tokio::spawn(relay)),
                _rig: None,
            }
        }
        Through::Tunnel => {
            let rig = Rig::new(TunnelSettings::default());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, _server) = rig.server(listener.local_addr().unwrap()).await;
            let ((client, relayed), accepted) = tokio::join!(rig.client(address), listener.accept());
            Joined {
                client,
                server: accepted.unwrap().0,
                relayed: Some(relayed),
                _rig: Some(rig),
            }
        }
    }
}

const ALL: [Through; 3] = [Through::Nothing, Through::RelayTcp, Through::Tunnel];

fn reset(tcp: TcpStream) {
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
}

/// How a connection ended for whoever reads it.
#[derive(Debug, PartialEq)]
enum Seen {
    Eof(Vec<u8>),
    Reset(Vec<u8>),
}

async fn read_out(tcp: &mut TcpStream) -> Seen {
    let mut bytes = Vec::new();
    match timeout(Duration::from_secs(10), tcp.read_to_end(&mut bytes))
        .await
        .expect("an end")
    {
        Ok(_) => Seen::Eof(bytes),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            Seen::Reset(bytes)
        }
    }
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    for through in ALL {
        for server_first in [false, true] {
            let Joined {
                mut client,
                mut server,
                relayed,
                _rig,
            } = join(through).await;
            let (first, second) = if server_first {
                (&mut server, &mut client)
            } else {
                (&mut client, &mut server)
            };
            first.write_all(b"request").await.unwrap();
            first.shutdown().await.unwrap();
            assert_eq!(
                read_out(second).await,
                Seen::Eof(b"request".to_vec()),
                "{through:?}"
            );
            // The other direction lives on for as long as it likes.
            for _ in 0..3 {
                sleep(Duration::from_millis(20)).await;
                second.write_all(&[1; 50_000]).await.unwrap();
            }
            second.shutdown().await.unwrap();
            assert_eq!(read_out(first).await, Seen::Eof(vec![1; 150_000]), "{through:?}");
            if let Some(relayed) = relayed {
                assert_eq!(relayed.await.unwrap(), RelayEnd::ok());
            }
        }
    }
}

#[tokio::test]
async fn closing_without_a_word_is_an_end_of_file() {
    for through in ALL {
        let Joined {
            client, mut server, ..
        } = join(through).await;
        drop(client);
        assert_eq!(read_out(&mut server).await, Seen::Eof(Vec::new()), "{through:?}");
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_at_the_other_end_in_every_state() {
    for through in ALL {
        for by_server in [false, true] {
            for state in ["idle", "peer half closed", "after data"] {
                let Joined {
                    mut client,
                    mut server,
                    relayed,
                    _rig,
                } = join(through).await;
                client.write_all(b"ping").await.unwrap();
                server.read_exact(&mut [0; 4]).await.unwrap();
                let (resetting, mut other) = if by_server {
                    (server, client)
                } else {
                    (client, server)
                };
                let mut resetting = resetting;
                let mut expected = Vec::new();
                match state {
                    "peer half closed" => {
                        other.shutdown().await.unwrap();
                        assert_eq!(read_out(&mut resetting).await, Seen::Eof(Vec::new()));
                    }
                    "after data" => {
                        resetting.write_all(b"data").await.unwrap();
                        let mut buffer = [0; 4];
                        other.read_exact(&mut buffer).await.unwrap();
                    }
                    _ => {}
                }
                expected.clear();
                reset(resetting);
                let seen = read_out(&mut other).await;
                assert_eq!(
                    seen,
                    Seen::Reset(expected),
                    "{through:?} by_server={by_server} {state}"
                );
                if let Some(relayed) = relayed {
                    let reason = relayed.await.unwrap().reason;
                    let by = if by_server {
                        Reason::ResetByDestination
                    } else {
                        Reason::ResetBySource
                    };
                    assert_eq!(reason, by, "{through:?} {state}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_reset_is_noticed_while_the_other_end_does_not_read() {
    for through in [Through::RelayTcp, Through::Tunnel] {
        for by_server in [false, true] {
            let Joined {
                client,
                server,
                relayed,
                _rig,
            } = join(through).await;
            let (mut resetting, mut other) = if by_server {
                (server, client)
            } else {
                (client, server)
            };
            // Fill every buffer on the way.
            while timeout(Duration::from_millis(300), resetting.write_all(&[0; 65536]))
                .await
                .is_ok()
            {}
            reset(resetting);
            let relayed = timeout(Duration::from_secs(5), relayed.unwrap()).await;
            let reason = relayed
                .unwrap_or_else(|_| panic!("{through:?} by_server={by_server}"))
                .unwrap()
                .reason;
            let by = if by_server {
                Reason::ResetByDestination
            } else {
                Reason::ResetBySource
            };
            assert_eq!(reason, by, "{through:?}");
            assert!(
                matches!(read_out(&mut other).await, Seen::Reset(_)),
                "{through:?} by_server={by_server}"
            );
        }
    }
}

#[tokio::test]
async fn a_reset_after_the_end_of_file_ends_the_other_direction_too() {
    for through in ALL {
        for by_server in [false, true] {
            let Joined {
                client,
                server,
                relayed,
                _rig,
            } = join(through).await;
            let (mut resetting, mut other) = if by_server {
                (server, client)
            } else {
                (client, server)
            };
            resetting.write_all(b"all").await.unwrap();
            resetting.shutdown().await.unwrap();
            assert_eq!(
                read_out(&mut other).await,
                Seen::Eof(b"all".to_vec()),
                "{through:?}"
            );
            reset(resetting);
            if let Some(relayed) = relayed {
                let ended = timeout(Duration::from_secs(5), relayed).await;
                assert!(ended.is_ok(), "{through:?} by_server={by_server}: nobody noticed");
            }
            fails_to_write(&mut other, through).await;
        }
    }
}

async fn fails_to_write(tcp: &mut TcpStream, through: Through) {
    let failed = async {
        while tcp.write_all(b"more").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), failed)
        .await
        .unwrap_or_else(|_| panic!("{through:?}: no error"));
}

#[tokio::test]
async fn an_answer_survives_a_server_that_closes_without_reading_on() {
    for through in ALL {
        let Joined {
            mut client,
            mut server,
            _rig,
            ..
        } = join(through).await;
        client.write_all(b"GET").await.unwrap();
        server.read_exact(&mut [0; 3]).await.unwrap();
        server.write_all(&[5; 100_000]).await.unwrap();
        server.shutdown().await.unwrap();
        let seen = read_out(&mut client).await;
        assert_eq!(seen, Seen::Eof(vec![5; 100_000]), "{through:?}");
        drop(server);
        // Writing on ends in an error, as to any closed server.
        fails_to_write(&mut client, through).await;
    }
}

#[tokio::test]
async fn a_lost_tunnel_and_a_cancelled_relay_are_resets() {
    for cancel in [false, true] {
        let Joined {
            mut client,
            mut server,
            relayed,
            _rig,
        } = join(Through::Tunnel).await;
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        if cancel {
            relayed.unwrap().abort();
        } else {
            _rig.unwrap().pool.drain(Duration::ZERO).await;
        }
        assert_eq!(read_out(&mut client).await, Seen::Reset(Vec::new()));
        assert_eq!(read_out(&mut server).await, Seen::Reset(Vec::new()));
    }
}
