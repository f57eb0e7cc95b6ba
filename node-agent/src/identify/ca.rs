//! The embedded certificate authority of files mode: a root of trust in the state directory.

mod error;
mod files;
mod root;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tramline_core::identity::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

pub use error::CaError;

use self::files::Files;
use self::root::Root;
use super::certificate::WorkloadCertificate;
use super::verify::Trust;

/// How far a peer's clock may be behind ours for it to accept a certificate at once.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Signs certificates for the workloads of one trust domain.
// No `Debug`: it holds the root's key.
pub struct CertificateAuthority {
    root: Root,
    trust: Arc<Trust>,
}

impl CertificateAuthority {
    /// The root in `<state_dir>/ca`, made if there is none yet. Agents that share the directory and start together
    /// get the same one. Blocks on files; for the start of the agent.
    ///
    /// # Errors
    /// When the key could be read or replaced by other users, when root and key do not belong together, when the
    /// root is another trust domain's or has expired, or when the files cannot be read or written.
    pub fn open_or_create(state_dir: &Path, trust_domain: &TrustDomain) -> Result<Self, CaError> {
        let files = Files::open(state_dir)?;
        let root = match Root::load(&files, trust_domain, SystemTime::now())? {
            Some(root) => root,
            None => {
                let _lock = files.lock()?;
                // Whoever held the lock before may have made it.
                match Root::load(&files, trust_domain, SystemTime::now())? {
                    Some(root) => root,
                    None => Root::create(&files, trust_domain, SystemTime::now())?,
                }
            }
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let trust = Trust::new(trust_domain.clone(), root.certificate(), provider)?;
        Ok(Self {
            root,
            trust: Arc::new(trust),
        })
    }

    /// A new key and a certificate for `identity`, valid from a minute before `now` until `ttl` after it, but no
    /// longer than the root.
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
        if identity.trust_domain() != self.trust.trust_domain() {
            return Err(CaError::ForeignIdentity(identity.clone()));
        }
        let not_before = whole_seconds(now - CLOCK_SKEW)?;
        let end = now.checked_add(ttl).ok_or(CaError::Lifetime)?;
        let not_after = whole_seconds(end.min(self.root.not_after()))?;
        if SystemTime::from(not_after) <= now {
            return Err(CaError::Lifetime);
        }

        let (leaf, key) = self.sign(self.params(identity, not_before, not_after)?)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der()));
        let signing = aws_lc_rs::sign::any_ecdsa_type(&key)?;
        let validity = (not_before.into(), not_after.into());
        let trust = self.trust.clone();
        Ok(WorkloadCertificate::new(
            identity.clone(),
            validity,
            leaf,
            signing,
            trust,
        )?)
    }

    /// The end of the root's validity, after which nothing is issued.
    pub fn not_after(&self) -> SystemTime {
        self.root.not_after()
    }

    /// What a workload's certificate says, after X.509-SVID.
    fn params(
        &self,
        identity: &SpiffeId,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<CertificateParams, CaError> {
        let mut params = CertificateParams::default();
        params.not_before = not_before;
        params.not_after = not_after;
        params.serial_number = Some(self.serial_number()?);
        // Empty: the name is in the URI only.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    /// A new key and its certificate.
    fn sign(
        &self,
        params: CertificateParams,
    ) -> Result<(CertificateDer<'static>, Zeroizing<KeyPair>), CaError> {
        let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
        let issuer = Issuer::from_ca_cert_der(self.root.certificate(), self.root.key())?;
        let leaf = params.signed_by(&*key, &issuer)?.der().clone();
        Ok((leaf, key))
    }

    /// Unpredictable (CA/Browser Forum Baseline Requirements section 7.1 ask for 64 bits), positive and of at most
    /// 20 octets (RFC 5280 section 4.1.2.2).
    fn serial_number(&self) -> Result<SerialNumber, CaError> {
        let mut bytes = [0; 16];
        self.trust
            .provider()
            .secure_random
            .fill(&mut bytes)
            .map_err(|_| CaError::Random)?;
        // The first octet neither makes it negative nor is dropped as a leading zero.
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(SerialNumber::from_slice(&bytes))
    }
}

/// Certificates count in seconds (RFC 5280 section 4.1.2.5); rounding down never lengthens a validity's end.
fn whole_seconds(at: SystemTime) -> Result<OffsetDateTime, CaError> {
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| CaError::Lifetime)?
        .as_secs();
    let seconds = i64::try_from(seconds).map_err(|_| CaError::Lifetime)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Lifetime)
}

#[cfg(test)]
impl CertificateAuthority {
    /// A certificate of this root with whatever `change` makes of it, for tests of those who have to refuse it.
    pub(super) fn forge(
        &self,
        identity: &SpiffeId,
        change: impl FnOnce(&mut CertificateParams),
    ) -> WorkloadCertificate {
        let now = SystemTime::now();
        let (not_before, not_after) = (now - CLOCK_SKEW, now + Duration::from_secs(3600));
        let mut params = self
            .params(
                identity,
                whole_seconds(not_before).unwrap(),
                whole_seconds(not_after).unwrap(),
            )
            .unwrap();
        change(&mut params);
        let (leaf, key) = self.sign(params).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der()));
        let signing = aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
        let validity = (not_before, not_after);
        WorkloadCertificate::new(identity.clone(), validity, leaf, signing, self.trust.clone()).unwrap()
    }

    pub(super) fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }
}

#[cfg(test)]
mod tests;
