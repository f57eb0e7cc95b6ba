use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tramline_core::identity::TrustDomain;

use super::follow;
use crate::identify::{CertStore, CertificateAuthority, TrustFiles};

async fn until(what: &str, store: &CertStore, there: impl Fn(&CertStore) -> bool) {
    let give_up = Instant::now() + Duration::from_secs(8);
    while !there(store) {
        assert!(
            Instant::now() < give_up,
            "{what}: {:?}",
            store.authority().reloads()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn files_are_followed_also_through_the_links_of_a_mounted_volume() {
    let domain = TrustDomain::new("cluster.local").unwrap();
    let (ours, theirs, volume) = (
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    for dir in [&ours, &theirs] {
        CertificateAuthority::open_or_create(dir.path(), &domain).unwrap();
    }
    let root = |dir: &TempDir| fs::read_to_string(dir.path().join("ca/root.pem")).unwrap();
    // As the kubelet lays out a ConfigMap: the file is a link through `..data`, which is replaced.
    let version = |name: &str, text: &str| {
        let dir = volume.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("roots.pem"), text).unwrap();
        fs::set_permissions(dir.join("roots.pem"), Permissions::from_mode(0o644)).unwrap();
        symlink(name, volume.path().join("..next")).unwrap();
        fs::rename(volume.path().join("..next"), volume.path().join("..data")).unwrap();
    };
    version("..1", &root(&ours));
    let bundle = volume.path().join("roots.pem");
    symlink("..data/roots.pem", &bundle).unwrap();
    let given = TrustFiles {
        bundle: Some(bundle),
        crl: None,
    };
    let authority = CertificateAuthority::open(ours.path(), &domain.clone().into(), given).unwrap();
    let store = CertStore::new(authority, Duration::from_secs(3600));
    let stop = CancellationToken::new();
    let task = tokio::spawn(follow(store.clone(), stop.clone()));

    version("..2", &(root(&ours) + &root(&theirs)));
    until("two roots", &store, |store| {
        store.trust().snapshot().roots.len() == 2
    })
    .await;
    version("..3", "nothing");
    until("a complaint", &store, |store| {
        !store.authority().reloads().errors.is_empty()
    })
    .await;
    assert_eq!(store.trust().snapshot().roots.len(), 2);
    version("..4", &root(&ours));
    until("one root", &store, |store| {
        store.trust().snapshot().roots.len() == 1
    })
    .await;
    assert!(store.authority().reloads().errors.is_empty());

    for name in ["ca/root-key.pem", "ca/root.pem"] {
        fs::copy(theirs.path().join(name), ours.path().join(name)).unwrap();
    }
    until("another signer", &store, |store| {
        store.trust().snapshot().roots.len() == 2 && store.authority().reloads().errors.is_empty()
    })
    .await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap();
    drop(Arc::into_inner(store));
}
