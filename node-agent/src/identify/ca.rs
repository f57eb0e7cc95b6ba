//! The embedded certificate authority of files mode: whoever signs and whom to trust, from files that may change while
//! the agent runs.

mod error;
mod files;
mod issue;
mod root;
mod sources;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tramline_core::identity::{SpiffeId, TrustDomain, TrustDomains};

pub use error::CaError;
pub use sources::TrustFiles;

use self::files::Files;
use self::issue::{Leaf, leaf};
use self::root::Root;
use self::sources::{Reader, Sources};
use super::certificate::{Issued, WorkloadCertificate};
use super::trust::{Anchors, Trust};

/// How far a peer's clock may be behind ours for it to accept a certificate at once, however short it lives.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Life of the certificate that a signer is tried with; nobody gets it.
const PROBE: Duration = Duration::from_secs(60);

/// Signs certificates for the workloads of one trust domain.
// No `Debug`: it holds the signer's key.
pub struct CertificateAuthority {
    files: Files,
    given: TrustFiles,
    /// What is in force; held while the files are read again.
    sources: Mutex<Sources>,
    signer: ArcSwap<Signer>,
    /// Counts the signers.
    signers: watch::Sender<u64>,
    trust: Arc<Trust>,
    reloads: Reloads,
}

/// Who signs at this moment.
struct Signer {
    root: Arc<Root>,
    /// Fingerprint of the root that vouches for it.
    vouching: String,
    /// Cancelled when another signs; then nothing of this one serves new connections.
    superseded: CancellationToken,
}

/// How reading the files went, for metrics.
#[derive(Debug, Default)]
struct Reloads {
    ok: AtomicU64,
    failed: AtomicU64,
    errors: Mutex<Vec<String>>,
}

/// How reading the trust files again went since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustReloads {
    /// Changes that were taken.
    pub ok: u64,
    /// Readings with something in them that was not taken.
    pub failed: u64,
    /// What the files hold now that is not taken, one line each; of these the last good reading is in force.
    pub errors: Vec<String>,
}

impl CertificateAuthority {
    /// The root in `<state_dir>/ca`, made if there is none yet, and no other to trust. Agents that share the
    /// directory and start together get the same one. Blocks on files; for the start of the agent.
    ///
    /// # Errors
    /// When the key could be read or replaced by other users, when root and key do not belong together, when the
    /// root is another trust domain's or has expired, or when the files cannot be read or written.
    pub fn open_or_create(state_dir: &Path, trust_domain: &TrustDomain) -> Result<Self, CaError> {
        Self::open(state_dir, &trust_domain.clone().into(), TrustFiles::default())
    }

    /// The same, with roots and revocation lists from files of the operator.
    ///
    /// # Errors
    /// As [`Self::open_or_create`], and when any of these files is bad: without a last good reading nothing can stand
    /// in for it.
    pub fn open(state_dir: &Path, trust_domains: &TrustDomains, given: TrustFiles) -> Result<Self, CaError> {
        let files = Files::open(state_dir)?;
        let now = SystemTime::now();
        let root = match Root::load(&files, trust_domains, now)? {
            Some(root) => root,
            None => {
                let _lock = files.lock()?;
                // Whoever held the lock before may have made it.
                match Root::load(&files, trust_domains, now)? {
                    Some(root) => root,
                    None => Root::create(&files, trust_domains.own(), now)?,
                }
            }
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let reader = Reader {
            files: &files,
            given: &given,
            trust_domains,
            provider: &provider,
            now,
        };
        let sources = reader.first(root)?;
        let signer = Signer::new(&sources);
        let trust = Trust::new(trust_domains.clone(), provider, sources.anchors.clone());
        Ok(Self {
            files,
            given,
            sources: Mutex::new(sources),
            signer: ArcSwap::from_pointee(signer),
            signers: watch::Sender::new(0),
            trust,
            reloads: Reloads::default(),
        })
    }

    /// Reads the files again and follows what has changed: first whom to trust, then who signs. Blocks on files.
    ///
    /// Answers what is not taken; of those files the last good reading stays in force.
    pub fn reload(&self) -> Vec<CaError> {
        let mut sources = self.sources();
        let reader = Reader {
            files: &self.files,
            given: &self.given,
            trust_domains: self.trust.trust_domains(),
            provider: self.trust.provider(),
            now: SystemTime::now(),
        };
        let (taken, errors) = reader.again(&sources);
        if let Some(taken) = taken {
            self.follow(&mut sources, taken);
            self.reloads.ok.fetch_add(1, Ordering::Relaxed);
        }
        if !errors.is_empty() {
            self.reloads.failed.fetch_add(1, Ordering::Relaxed);
        }
        *self.reloads.lock() = errors.iter().map(ToString::to_string).collect();
        errors
    }

    fn follow(&self, sources: &mut Sources, taken: Sources) {
        if !taken.anchors.same(&sources.anchors) {
            log_changes(&sources.anchors, &taken.anchors);
            self.trust.replace(taken.anchors.clone());
        }
        if !Arc::ptr_eq(&taken.root, &sources.root) {
            let info = taken.root.info();
            tracing::info!(subject = %info.subject, fingerprint = %info.fingerprint, "another authority signs from now on");
            let before = self.signer.swap(Arc::new(Signer::new(&taken)));
            self.signers.send_modify(|signers| *signers += 1);
            before.superseded.cancel();
        }
        *sources = taken;
    }

    /// How reading the files again went.
    pub fn reloads(&self) -> TrustReloads {
        TrustReloads {
            ok: self.reloads.ok.load(Ordering::Relaxed),
            failed: self.reloads.failed.load(Ordering::Relaxed),
            errors: self.reloads.lock().clone(),
        }
    }

    /// The files that [`Self::reload`] reads.
    pub fn watched(&self) -> Vec<PathBuf> {
        let given = [&self.given.bundle, &self.given.crl];
        [self.files.root(), self.files.key()]
            .into_iter()
            .chain(given.into_iter().flatten().cloned())
            .collect()
    }

    /// Whom the agent believes.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Tells when another authority signs.
    pub(super) fn signers(&self) -> watch::Receiver<u64> {
        self.signers.subscribe()
    }

    /// A new key and a certificate for `identity`, valid from a minute before `now` until `ttl` after it, but no
    /// longer than whoever signs it.
    ///
    /// # Errors
    /// [`CaError::ForeignIdentity`] for another trust domain's identity, [`CaError::Lifetime`] when nothing is left
    /// of the validity.
    pub fn issue(
        &self,
        identity: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<WorkloadCertificate, CaError> {
        if identity.trust_domain() != self.trust.trust_domains().own() {
            return Err(CaError::ForeignIdentity(identity.clone()));
        }
        let signer = self.signer.load_full();
        let leaf = leaf(&signer.root, identity, ttl, now, self.trust.provider())?;
        self.ready(identity, leaf, &signer)
    }

    fn ready(
        &self,
        identity: &SpiffeId,
        leaf: Leaf,
        signer: &Signer,
    ) -> Result<WorkloadCertificate, CaError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.key.serialized_der()));
        let key = aws_lc_rs::sign::any_ecdsa_type(&key)?;
        let mut chain = vec![leaf.der];
        chain.extend_from_slice(signer.root.intermediates());
        let issued = Issued {
            identity: identity.clone(),
            validity: leaf.validity,
            issuer: signer.root.info().clone(),
            vouching: signer.vouching.clone(),
            superseded: signer.superseded.child_token(),
        };
        Ok(WorkloadCertificate::new(issued, chain, key, self.trust.clone())?)
    }

    /// The end of the validity of whoever signs, after which nothing is issued.
    pub fn not_after(&self) -> SystemTime {
        self.signer.load().root.not_after()
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signer {
    fn new(sources: &Sources) -> Self {
        Self {
            root: sources.root.clone(),
            vouching: sources.vouching.clone(),
            superseded: CancellationToken::new(),
        }
    }
}

impl Reloads {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_changes(before: &Anchors, after: &Anchors) {
    for root in after.roots().iter().filter(|root| !before.roots().contains(root)) {
        tracing::info!(subject = %root.subject, fingerprint = %root.fingerprint, "a root is trusted from now on");
    }
    for root in before.roots().iter().filter(|root| !after.roots().contains(root)) {
        tracing::warn!(subject = %root.subject, fingerprint = %root.fingerprint, "a root is not trusted any more");
    }
    for list in after.crls().map(|crl| crl.info()) {
        let lapsed = list.next_update <= SystemTime::now();
        tracing::info!(issuer = %list.issuer, revoked = list.revoked, lapsed, "a revocation list is in force");
    }
}

#[cfg(test)]
impl CertificateAuthority {
    /// A certificate of this root with whatever `change` makes of it, for tests of those who have to refuse it.
    pub(super) fn forge(
        &self,
        identity: &SpiffeId,
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> WorkloadCertificate {
        let now = SystemTime::now();
        let validity = (now - CLOCK_SKEW, now + Duration::from_secs(3600));
        let at = |at| issue::whole_seconds(at).unwrap();
        let mut params =
            issue::params(identity, at(validity.0), at(validity.1), self.trust.provider()).unwrap();
        change(&mut params);
        let signer = self.signer.load_full();
        let (der, key) = issue::sign(&signer.root, params).unwrap();
        let leaf = Leaf { der, key, validity };
        self.ready(identity, leaf, &signer).unwrap()
    }
}

#[cfg(test)]
mod tests;
