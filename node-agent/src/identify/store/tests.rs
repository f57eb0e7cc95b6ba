use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tramline_core::identity::SpiffeId;
use tramline_core::reason::Reason;

use super::{CertStore, IdentityError, MAX_IDENTITIES, share_of_life};
use crate::identify::test_support::{HOUR, authority, workload};

/// A clock that stands still until it is set.
#[derive(Clone)]
struct Clock {
    start: SystemTime,
    seconds: Arc<AtomicU64>,
}

impl Clock {
    fn set(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::Relaxed);
    }

    fn now(&self) -> SystemTime {
        self.start + Duration::from_secs(self.seconds.load(Ordering::Relaxed))
    }
}

/// A store of certificates for one hour.
fn store() -> (Arc<CertStore>, Clock) {
    let clock = Clock {
        start: SystemTime::now(),
        seconds: Arc::default(),
    };
    let of_store = clock.clone();
    (
        CertStore::with_clock(authority(), HOUR, move || of_store.now()),
        clock,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_at_the_same_time_share_one_certificate() {
    let (store, _) = store();
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.get(&workload("web")).await.unwrap() })
        })
        .collect();
    let first = store.get(&workload("web")).await.unwrap();
    for caller in callers {
        assert!(Arc::ptr_eq(&first, &caller.await.unwrap()));
    }
    let other = store.get(&workload("db")).await.unwrap();
    assert_eq!(other.identity(), &workload("db"));
    assert_eq!(
        store.snapshot(),
        [
            (workload("db"), other.not_after()),
            (workload("web"), first.not_after())
        ]
    );
}

#[tokio::test]
async fn half_a_life_later_there_is_a_new_certificate() {
    let (store, clock) = store();
    let first = store.get(&workload("web")).await.unwrap();
    clock.set(44 * 36); // 0.44 of the hour
    store.renew_due().await;
    assert!(Arc::ptr_eq(&first, &store.get(&workload("web")).await.unwrap()));
    clock.set(56 * 36);
    store.renew_due().await;
    let second = store.get(&workload("web")).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(second.not_after() > first.not_after());
}

#[tokio::test]
async fn an_expired_certificate_is_never_handed_out() {
    let (store, clock) = store();
    let first = store.get(&workload("web")).await.unwrap();
    // Nobody renews; the last second, then the end.
    clock.set(3598);
    assert!(Arc::ptr_eq(&first, &store.get(&workload("web")).await.unwrap()));
    clock.set(3601);
    let second = store.get(&workload("web")).await.unwrap();
    assert!(second.valid_at(clock.now()));
}

#[tokio::test]
async fn without_an_authority_a_valid_certificate_still_serves_and_then_nothing() {
    let (store, clock) = store();
    // The root ends within the last certificate's life, so that nothing can follow it.
    let root_end = store.authority.not_after();
    let last = root_end.duration_since(clock.start).unwrap().as_secs();
    clock.set(last - 100);
    let certificate = store.get(&workload("web")).await.unwrap();
    assert_eq!(certificate.not_after(), root_end);
    clock.set(last + 1);
    store.renew_due().await;
    let error = store.get(&workload("web")).await.err().unwrap();
    assert!(matches!(error, IdentityError::Issue { .. }), "{error}");
    assert_eq!(error.reason(), Reason::NoCertificate);
}

#[tokio::test]
async fn a_foreign_identity_has_no_certificate() {
    let (store, _) = store();
    let foreign = SpiffeId::parse("spiffe://other.example/ns/shop/sa/web").unwrap();
    let error = store.get(&foreign).await.err().unwrap();
    assert_eq!(error.reason(), Reason::NoCertificate);
    assert!(store.snapshot().is_empty());
}

#[tokio::test]
async fn what_nobody_uses_is_forgotten() {
    let (store, clock) = store();
    store.get(&workload("web")).await.unwrap();
    store.get(&workload("db")).await.unwrap();
    clock.set(2000);
    store.renew_due().await; // both were used and are renewed
    assert_eq!(store.snapshot().len(), 2);
    store.get(&workload("db")).await.unwrap();
    clock.set(4000);
    store.renew_due().await;
    let kept: Vec<_> = store
        .snapshot()
        .into_iter()
        .map(|(identity, _)| identity)
        .collect();
    assert_eq!(kept, [workload("db")]);

    store.get(&workload("web")).await.unwrap();
    store.retain(&HashSet::from([workload("web")]));
    assert_eq!(store.snapshot().len(), 1);
    assert_eq!(store.snapshot()[0].0, workload("web"));
}

#[tokio::test]
async fn identities_are_bounded() {
    let (store, _) = store();
    let first = store.get(&workload("web")).await.unwrap();
    for i in 1..MAX_IDENTITIES {
        store.slot(&workload(&format!("w{i}"))).unwrap();
    }
    let error = store.get(&workload("one-more")).await.err().unwrap();
    assert_eq!(error.reason(), Reason::LimitReached);
    // Whoever is in stays in, and the unused make room.
    assert!(Arc::ptr_eq(&first, &store.get(&workload("web")).await.unwrap()));
    store.renew_due().await;
    store.get(&workload("one-more")).await.unwrap();
}

#[tokio::test]
async fn the_background_task_renews_and_stops() {
    let store = CertStore::new(authority(), Duration::from_secs(3));
    let first = store.get(&workload("web")).await.unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(store.clone().run(stop.clone()));
    let give_up = Instant::now() + Duration::from_secs(20);
    // Before the end: the snapshot does not issue, so this is the task's work.
    while store.snapshot()[0].1 == first.not_after() {
        assert!(Instant::now() < give_up, "not renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.snapshot()[0].1 > first.not_after());
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap();
}

#[test]
fn renewals_are_spread_around_half_a_life() {
    for random in [0, 1, u64::MAX / 2, u64::MAX] {
        let share = share_of_life(random);
        assert!((0.45..=0.55).contains(&share), "{share}");
    }
    assert!(share_of_life(u64::MAX) - share_of_life(0) > 0.09);
}
