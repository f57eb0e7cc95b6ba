//! The certificates of this node's workloads: made when first needed, renewed at half of their life, and at once when
//! another authority signs.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tramline_core::identity::SpiffeId;
use tramline_core::reason::Reason;

use super::ca::{CaError, CertificateAuthority};
use super::certificate::{CertificateInfo, WorkloadCertificate};
use super::trust::Trust;

/// Service accounts on one node; Kubernetes recommends at most 110 pods on a node, some run 500.
const MAX_IDENTITIES: usize = 4096;
/// Looks this often, in parts of a certificate's life, whether something is due...
const LOOKS_PER_LIFE: u32 = 20;
/// ... but no less often than this, so that a clock that was set forward is noticed,
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// ... and no more often than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// When another authority signs, certificates are renewed within this long, each agent at its own moment.
const SPREAD: Duration = Duration::from_secs(2);

/// Why a workload has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The authority gave none.
    #[error("no certificate for {identity}: {source}")]
    Issue {
        /// The workload.
        identity: SpiffeId,
        /// The authority's answer.
        source: CaError,
    },
    /// A bound of the agent.
    #[error("no certificate for {0}: the agent already keeps {MAX_IDENTITIES} identities")]
    TooMany(SpiffeId),
}

impl IdentityError {
    /// What it means to the connection that needed the certificate.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Issue { .. } => Reason::NoCertificate,
            Self::TooMany(_) => Reason::LimitReached,
        }
    }
}

/// How asking the authority went since the agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssueCounts {
    /// Certificates made, renewals included.
    pub issued: u64,
    /// Attempts that failed.
    pub failed: u64,
}

/// One certificate per identity, valid whenever it is handed out.
pub struct CertStore {
    authority: CertificateAuthority,
    ttl: Duration,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    issued: AtomicU64,
    failed: AtomicU64,
    slots: RwLock<HashMap<SpiffeId, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    held: ArcSwapOption<Held>,
    /// Whoever holds it issues; the others find what it got.
    issuing: Mutex<()>,
    /// Since the last renewal.
    used: AtomicBool,
}

struct Held {
    certificate: Arc<WorkloadCertificate>,
    renew_at: SystemTime,
}

impl CertStore {
    /// An empty store whose certificates are valid for `ttl`.
    pub fn new(authority: CertificateAuthority, ttl: Duration) -> Arc<Self> {
        Self::with_clock(authority, ttl, SystemTime::now)
    }

    fn with_clock(
        authority: CertificateAuthority,
        ttl: Duration,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            authority,
            ttl,
            clock: Box::new(clock),
            issued: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            slots: RwLock::default(),
        })
    }

    /// The certificate of `identity`, made now if there is no valid one. Callers at the same time share one.
    ///
    /// To be asked for each connection, not kept: the store renews, and forgets what nobody asks for.
    ///
    /// # Errors
    /// When the authority refuses and there is no valid certificate left, and when too many identities are kept.
    pub async fn get(
        self: &Arc<Self>,
        identity: &SpiffeId,
    ) -> Result<Arc<WorkloadCertificate>, IdentityError> {
        let slot = self.slot(identity)?;
        slot.used.store(true, Ordering::Relaxed);
        if let Some(certificate) = self.valid(&slot) {
            return Ok(certificate);
        }
        // No timeout: whoever holds it does not wait for anything, see `renew`.
        let _issuing = slot.issuing.lock().await;
        match self.valid(&slot) {
            Some(certificate) => Ok(certificate),
            None => self.renew(identity, &slot),
        }
    }

    /// Whom the agent believes.
    pub fn trust(&self) -> &Arc<Trust> {
        self.authority.trust()
    }

    /// Who signs, and the files behind it.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// Certificates made, and attempts that failed.
    pub fn counts(&self) -> IssueCounts {
        IssueCounts {
            issued: self.issued.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// Renews until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let pause = (self.ttl / LOOKS_PER_LIFE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut look = tokio::time::interval(pause);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut signers = self.authority.signers();
        let mut trust = self.authority.trust().changes();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
                Ok(()) = trust.changed() => self.give_up_disbelieved(),
                // Whoever connects meanwhile gets a new one at once, see `valid`.
                Ok(()) = signers.changed() => tokio::time::sleep(SPREAD.mul_f64(share(random()))).await,
            }
            self.renew_due().await;
        }
    }

    /// Forgets every other identity, such as those of pods that left the node.
    pub fn retain(&self, identities: &HashSet<SpiffeId>) {
        self.slots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|identity, _| identities.contains(identity));
    }

    /// The identities that have a certificate and when it expires, in order.
    pub fn snapshot(&self) -> Vec<(SpiffeId, SystemTime)> {
        let mut certificates: Vec<_> = self
            .all()
            .into_iter()
            .filter_map(|(identity, slot)| {
                Some((identity, slot.held.load().as_ref()?.certificate.not_after()))
            })
            .collect();
        certificates.sort();
        certificates
    }

    /// All certificates in use, in order of their identities.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        let mut certificates: Vec<_> = self
            .all()
            .into_iter()
            .filter_map(|(_, slot)| {
                let held = slot.held.load();
                held.as_ref().map(|held| held.certificate.info(held.renew_at))
            })
            .collect();
        certificates.sort_by(|a, b| a.identity.cmp(&b.identity));
        certificates
    }

    fn slot(&self, identity: &SpiffeId) -> Result<Arc<Slot>, IdentityError> {
        let known = self
            .slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(identity)
            .cloned();
        if let Some(slot) = known {
            return Ok(slot);
        }
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_IDENTITIES && !slots.contains_key(identity) {
            return Err(IdentityError::TooMany(identity.clone()));
        }
        Ok(slots.entry(identity.clone()).or_default().clone())
    }

    fn all(&self) -> Vec<(SpiffeId, Arc<Slot>)> {
        self.slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(identity, slot)| (identity.clone(), slot.clone()))
            .collect()
    }

    fn valid(&self, slot: &Slot) -> Option<Arc<WorkloadCertificate>> {
        let held = slot.held.load();
        let certificate = &held.as_ref()?.certificate;
        let good = certificate.valid_at((self.clock)()) && !certificate.superseded().is_cancelled();
        good.then(|| certificate.clone())
    }

    /// Issues into the slot; the caller holds `issuing`. On this thread: a key, a signature and two configurations
    /// take 0.2 ms (measured without optimisation), hardly more than a hop to another thread and back.
    fn renew(&self, identity: &SpiffeId, slot: &Slot) -> Result<Arc<WorkloadCertificate>, IdentityError> {
        let now = (self.clock)();
        let issued = self.authority.issue(identity, self.ttl, now);
        let count = if issued.is_ok() {
            &self.issued
        } else {
            &self.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
        let certificate = Arc::new(issued.map_err(|source| IdentityError::Issue {
            identity: identity.clone(),
            source,
        })?);
        let life = certificate.not_after().duration_since(now).unwrap_or_default();
        let before = slot.held.swap(Some(Arc::new(Held {
            certificate: certificate.clone(),
            renew_at: now + life.mul_f64(share_of_life(random())),
        })));
        if let Some(before) = before {
            before.certificate.superseded().cancel();
        }
        tracing::debug!(%identity, "issued a certificate");
        Ok(certificate)
    }

    /// What is revoked, or has lost its root, serves nobody: the next who asks gets another.
    fn give_up_disbelieved(&self) {
        let now = (self.clock)();
        for (identity, slot) in self.all() {
            if let Some(held) = slot.held.load().as_ref()
                && !held.certificate.believed(now)
            {
                tracing::warn!(%identity, "the workload's own certificate is not trusted any more; making another");
                held.certificate.superseded().cancel();
            }
        }
    }

    async fn renew_due(&self) {
        for (identity, slot) in self.all() {
            let Ok(issuing) = slot.issuing.try_lock() else {
                continue;
            };
            let now = (self.clock)();
            let due = match slot.held.load().as_ref() {
                Some(held) => {
                    let certificate = &held.certificate;
                    now >= held.renew_at
                        || !certificate.valid_at(now)
                        || certificate.superseded().is_cancelled()
                }
                None => true,
            };
            if !due {
                continue;
            }
            if !slot.used.swap(false, Ordering::Relaxed) {
                // Nobody asked in half a life. The next who does gets a new one.
                self.slots
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&identity);
                continue;
            }
            if let Err(error) = self.renew(&identity, &slot) {
                // Tried again at the next look.
                slot.used.store(true, Ordering::Relaxed);
                tracing::warn!(%error, "a certificate could not be renewed");
            }
            drop(issuing);
            // Many at once must not keep the worker from its connections.
            tokio::task::yield_now().await;
        }
    }
}

/// Between 0.45 and 0.55: certificates made together, at the start of the agent, are not renewed together.
fn share_of_life(random: u64) -> f64 {
    0.45 + 0.1 * share(random)
}

fn share(random: u64) -> f64 {
    random as f64 / u64::MAX as f64
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0_u8)
}

#[cfg(test)]
mod tests;
