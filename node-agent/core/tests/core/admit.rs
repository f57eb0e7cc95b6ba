//! Which targets a tunnel may name.

use tramline_core::admit::inbound_target;
use tramline_core::object::Objects;
use tramline_core::reason::Reason;

use crate::make::{build, pod, workload};

#[test]
fn only_the_workloads_own_addresses_are_targets() {
    let mesh = build(Objects {
        pods: vec![pod("demo", "web", &["10.0.0.1", "fd00::1"])],
        ..Objects::default()
    });
    let web = workload(&mesh, "demo/web");
    for (authority, target) in [
        ("10.0.0.1:8080", "10.0.0.1:8080"),
        ("[fd00::1]:8080", "[fd00::1]:8080"),
        ("[::ffff:10.0.0.1]:8080", "10.0.0.1:8080"),
        ("10.0.0.1:15001", "10.0.0.1:15001"),
    ] {
        assert_eq!(inbound_target(web, authority).unwrap().to_string(), target);
    }
    for (authority, reason) in [
        ("10.0.0.2:8080", Reason::AuthorityMismatch),
        ("127.0.0.1:8080", Reason::AuthorityMismatch),
        ("[::1]:8080", Reason::AuthorityMismatch),
        ("0.0.0.0:8080", Reason::AuthorityMismatch),
        ("169.254.169.254:80", Reason::AuthorityMismatch),
        ("10.0.0.1", Reason::AuthorityMismatch),
        ("10.0.0.1:", Reason::AuthorityMismatch),
        ("10.0.0.1:65536", Reason::AuthorityMismatch),
        ("fd00::1:8080", Reason::AuthorityMismatch),
        ("[fd00::1%1]:8080", Reason::AuthorityMismatch),
        ("[fd00::1%0]:8080", Reason::AuthorityMismatch),
        ("user@10.0.0.1:8080", Reason::AuthorityMismatch),
        ("web.demo.svc.cluster.local:80", Reason::AuthorityMismatch),
        ("010.0.0.1:8080", Reason::AuthorityMismatch),
        (" 10.0.0.1:8080", Reason::AuthorityMismatch),
        ("", Reason::AuthorityMismatch),
        ("10.0.0.1:15008", Reason::CaptureLoop),
        ("10.0.0.1:0", Reason::CaptureLoop),
    ] {
        assert_eq!(
            inbound_target(web, authority).unwrap_err().reason(),
            reason,
            "{authority}"
        );
    }
}
