use proptest::prelude::*;

use super::*;

const GOOD: &str = "spiffe://cluster.local/ns/demo/sa/sleep";

#[test]
fn reads_the_one_form() {
    let id = SpiffeId::parse(GOOD).unwrap();
    assert_eq!(id.trust_domain().as_str(), "cluster.local");
    assert_eq!(id.namespace(), "demo");
    assert_eq!(id.service_account(), "sleep");
    assert_eq!(id.principal(), "cluster.local/ns/demo/sa/sleep");
    assert_eq!(id.to_string(), GOOD);
    let td = TrustDomain::new("cluster.local").unwrap();
    assert_eq!(SpiffeId::new(&td, "demo", "sleep").unwrap(), id);
}

#[test]
fn refuses_everything_else() {
    for bad in [
        "",
        "cluster.local/ns/demo/sa/sleep",
        "SPIFFE://cluster.local/ns/demo/sa/sleep",
        "https://cluster.local/ns/demo/sa/sleep",
        "spiffe:/cluster.local/ns/demo/sa/sleep",
        "spiffe:///ns/demo/sa/sleep",
        "spiffe://Cluster.local/ns/demo/sa/sleep",
        "spiffe://user@cluster.local/ns/demo/sa/sleep",
        "spiffe://cluster.local:443/ns/demo/sa/sleep",
        "spiffe://cluster%2elocal/ns/demo/sa/sleep",
        "spiffe://cluster.local/ns/demo/sa/sleep?x=1",
        "spiffe://cluster.local/ns/demo/sa/sleep#x",
        "spiffe://cluster.local/ns/demo/sa/sleep/",
        "spiffe://cluster.local/ns/demo/sa/sleep/extra",
        "spiffe://cluster.local//ns/demo/sa/sleep",
        "spiffe://cluster.local/ns//sa/sleep",
        "spiffe://cluster.local/ns/demo/sa/",
        "spiffe://cluster.local/ns/demo/sa/..",
        "spiffe://cluster.local/ns/../sa/sleep",
        "spiffe://cluster.local/ns/%64emo/sa/sleep",
        "spiffe://cluster.local/ns/Demo/sa/sleep",
        "spiffe://cluster.local/ns/de.mo/sa/sleep",
        "spiffe://cluster.local/ns/-demo/sa/sleep",
        "spiffe://cluster.local/ns/demo/sa/sleep_1",
        "spiffe://cluster.local/ns/demo/sa/sleep ",
        " spiffe://cluster.local/ns/demo/sa/sleep",
        "spiffe://cluster.local/ns/demo/sa/sl\0eep",
        "spiffe://cluster.local/ns/démo/sa/sleep",
        "spiffe://cluster.local/NS/demo/sa/sleep",
        "spiffe://cluster.local/ns/demo/SA/sleep",
        "spiffe://cluster.local/sa/sleep/ns/demo",
        "spiffe://cluster.local/ns/demo",
        "spiffe://cluster.local",
    ] {
        assert!(SpiffeId::parse(bad).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn bounds_are_those_of_the_specifications() {
    let (td, ns, sa) = ("t".repeat(255), "n".repeat(63), "s".repeat(253));
    assert!(SpiffeId::parse(&format!("spiffe://{td}/ns/{ns}/sa/{sa}")).is_ok());
    assert_eq!(
        TrustDomain::new(&"t".repeat(256)),
        Err(IdentityError::TrustDomain)
    );
    assert_eq!(TrustDomain::new(""), Err(IdentityError::TrustDomain));
    let td = TrustDomain::new("td").unwrap();
    assert_eq!(
        SpiffeId::new(&td, &"n".repeat(64), "s"),
        Err(IdentityError::Namespace)
    );
    assert_eq!(
        SpiffeId::new(&td, "n", &"s".repeat(254)),
        Err(IdentityError::ServiceAccount)
    );
    assert_eq!(
        SpiffeId::parse(&"s".repeat(2049)),
        Err(IdentityError::TooLong(2049))
    );
}

proptest! {
    #[test]
    fn what_is_accepted_reads_back_the_same(text in "(spiffe://)?[a-zA-Z0-9._%:@/?# -]{0,80}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn parts_read_back(td in "[a-z0-9._-]{1,40}", ns in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", sa in "[a-z0-9]([a-z0-9.]{0,0}[a-z0-9-]{0,20}[a-z0-9])?") {
        let id = SpiffeId::new(&TrustDomain::new(&td).unwrap(), &ns, &sa).unwrap();
        let read = SpiffeId::parse(&id.to_string()).unwrap();
        prop_assert_eq!((read.namespace(), read.service_account()), (ns.as_str(), sa.as_str()));
        prop_assert_eq!(read, id);
    }
}
