//! Peers that connect to the tunnel port and say nothing, or half a ClientHello: closed within ten seconds, while
//! everybody else is served. However many come from one address, most of the node's handshakes are left to others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Result;
use tramline_e2e::world::{PORT, World};

/// A TLS record header that announces 512 bytes of ClientHello, and the first of them (RFC 8446, 4 and 5.1).
const HALF_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

#[test]
fn idle_handshakes() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::without_agents("idle_handshakes", "server --port 5000")?;
    let outsider = world.mesh.outsider(1, "outsider")?;
    let (client, near, far) = (world.client.clone(), world.near.clone(), world.far.clone());
    world.mesh.start(&[&client, &near, &far])?;
    world.exchange(far.at4(PORT), "")?;
    let start = Instant::now();
    let mut idle: Vec<TcpStream> = Vec::new();
    for index in 0..400 {
        // One address gets a fifth of the node's handshakes; the rest of its connections are reset.
        let Ok(mut stream) = outsider.netns.connect(far.at4(15_008), Duration::from_secs(2)) else {
            continue;
        };
        if index % 2 == 0 {
            let _ = stream.write_all(&HALF_HELLO);
        }
        stream.set_read_timeout(Some(Duration::from_millis(10_500)))?;
        idle.push(stream);
    }
    while start.elapsed() < Duration::from_secs(3) {
        let begun = Instant::now();
        world.exchange(far.at4(PORT), "")?;
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "the idle ones keep others waiting"
        );
    }
    let status = world.mesh.agents[1].cli("status")?;
    let detail = |name: &str| {
        status["details"][name]
            .as_str()
            .and_then(|count| count.parse::<u64>().ok())
    };
    let refused = detail("handshakes.refused").unwrap_or_default();
    assert!((150..250).contains(&refused), "{refused} of 400 refused");
    assert_eq!(
        detail("connections.shed"),
        Some(0),
        "they take no connection's place"
    );
    assert!(idle.len() >= 150, "{} of 400 connected", idle.len());
    for mut stream in idle {
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        let open = end.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        let after = start.elapsed().as_secs_f64();
        assert!(!open && after < 11.0, "still open after {after:.1} s");
    }
    Ok(())
}
