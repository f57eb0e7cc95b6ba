//! The target of a CONNECT, which a peer chooses: an address of the workload it arrived at, and a port that leads to an
//! application, or a refusal.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use tramline_core::admit::{AdmitError, HBONE_PORT, inbound_target};
use tramline_core::mesh::Mesh;
use tramline_core::object::Objects;
use tramline_core::workload::Workload;

use super::is_reason;
use crate::Target;
use crate::make::{build, ip, pod, workload};

pub(super) const TARGET: Target = Target {
    name: "authority",
    check,
    words: &[
        "10.0.0.1",
        "fd00::1",
        "[::ffff:10.0.0.1]",
        ":15008",
        ":0",
        "%1",
        "user@",
        "]:80",
        "127.0.0.1",
    ],
    mutations: 40_000,
    memory: (1 << 20, 64),
};

const ADDRESSES: [&str; 2] = ["10.0.0.1", "fd00::1"];

static MESH: LazyLock<Mesh> = LazyLock::new(|| {
    build(Objects {
        pods: vec![pod("demo", "web", &ADDRESSES)],
        ..Objects::default()
    })
});

fn check(input: &[u8]) {
    let web: &Workload = workload(&MESH, "demo/web");
    // As it is, where it can stand in a request, and as the port of the right address.
    if let Ok(text) = std::str::from_utf8(input) {
        admit(web, text);
        for address in ADDRESSES.map(ip) {
            let bare = match address {
                IpAddr::V4(v4) => format!("{v4}:{text}"),
                IpAddr::V6(v6) => format!("[{v6}]:{text}"),
            };
            admit(web, &bare);
        }
    }
    if let Ok(authority) = http::uri::Authority::try_from(input) {
        admit(web, authority.as_str());
    }
}

fn admit(web: &Workload, text: &str) {
    let (address, port) = match text.rsplit_once(':') {
        Some((address, port)) => (
            address.trim_matches(['[', ']']).parse::<IpAddr>(),
            port.parse::<u16>(),
        ),
        None => ("".parse::<IpAddr>(), "".parse::<u16>()),
    };
    match inbound_target(web, text) {
        Ok(target) => {
            assert!(web.addresses.contains(&target.ip()), "{text:?} leads to {target}");
            assert!(![0, HBONE_PORT].contains(&target.port()), "{text:?}");
            assert_eq!(address.map(|a| a.to_canonical()), Ok(target.ip()), "{text:?}");
            assert_eq!(port, Ok(target.port()), "{text:?}");
            assert_eq!(inbound_target(web, &target.to_string()), Ok(target));
        }
        Err(error) => {
            let reason = error.to_string();
            assert!(is_reason(&reason), "{reason:?}");
            assert_ne!(error.reason().as_str(), "ok");
            // What is refused for its address has been understood; only that is repeated.
            if let AdmitError::NotThisWorkload { target, .. } = error {
                assert!(!web.addresses.contains(&target.ip()), "{text:?}");
            }
            let plain = text.parse::<SocketAddr>().ok();
            let ours = plain.is_some_and(|plain| {
                web.addresses.contains(&plain.ip())
                    && ![0, HBONE_PORT].contains(&plain.port())
                    && !text.contains('%')
            });
            assert!(!ours, "refused: {text:?}: {reason}");
        }
    }
}
