//! Authorities as an operator makes them, and the files by which an agent of its own is told who signs and whom to trust.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType,
    SerialNumber,
};
use tramline_harness::agent::Agent;
use tramline_harness::mesh::Mesh;
use tramline_harness::net::Net;
use tramline_harness::wait;

/// From a file's change to its use, with room for a busy machine: nothing here counts on its being short.
const TAKEN: Duration = Duration::from_secs(20);

/// A root of the tests' trust domain, and its key.
#[derive(Debug)]
pub struct Authority {
    key: KeyPair,
    params: CertificateParams,
    certificate: String,
    subject: String,
}

impl Authority {
    /// A root that vouches for its signatures for this long.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(name: &str, life: Duration) -> Result<Self> {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + life).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI("spiffe://cluster.local".try_into()?)];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            key,
            params,
            certificate,
            subject: format!("CN={name}"),
        })
    }

    /// Its name as agents tell it.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// A list of certificates that it revokes, by their serial numbers in hexadecimal.
    ///
    /// # Errors
    /// A number is not in hexadecimal.
    fn list(&self, serials: &[&str]) -> Result<String> {
        let now = SystemTime::now();
        let revoked = serials.iter().map(|serial| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes(serial)?),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list
            .signed_by(&Issuer::from_params(&self.params, &self.key))?
            .pem()?)
    }
}

fn bytes(hexadecimal: &str) -> Result<Vec<u8>> {
    let pairs = (0..hexadecimal.len()).step_by(2);
    pairs
        .map(|at| {
            let pair = hexadecimal.get(at..at + 2).context("half a byte")?;
            u8::from_str_radix(pair, 16).context("not hexadecimal")
        })
        .collect()
}

/// The files of one node: each is replaced by renaming.
#[derive(Debug)]
pub struct TrustDir(PathBuf);

impl TrustDir {
    /// The directory of a node, with an authority that signs and those that are trusted.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(net: &Net, node: u8, signs: &Authority, trusted: &[&Authority]) -> Result<Self> {
        let dir = Self(net.run().dir().join(format!("trust-node{node}")));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.0.join("ca"))?;
        dir.sign_with(signs)?;
        dir.trust(trusted)?;
        dir.revoke(signs, &[])?;
        Ok(dir)
    }

    /// Has the agent read them from its start.
    pub fn give_to(&self, agent: &mut Agent) {
        let shown = |path: PathBuf| path.display().to_string();
        agent.set("--state-dir", shown(self.0.clone()));
        agent.set("--trust-bundle", shown(self.bundle()));
        agent.set("--crl", shown(self.crl()));
    }

    /// Has another authority sign: the key first.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn sign_with(&self, authority: &Authority) -> Result<()> {
        put(&self.key(), &authority.key.serialize_pem())?;
        put(&self.root(), &authority.certificate)
    }

    /// Removes the authority that signs.
    ///
    /// # Errors
    /// It is not there.
    pub fn remove_authority(&self) -> Result<()> {
        fs::remove_file(self.root())?;
        Ok(fs::remove_file(self.key())?)
    }

    /// Trusts these and the one that signs, and no others.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn trust(&self, authorities: &[&Authority]) -> Result<()> {
        let certificates: Vec<_> = authorities.iter().map(|it| it.certificate.as_str()).collect();
        put(&self.bundle(), &certificates.concat())
    }

    /// Believes what an authority says of its certificates, named by their serial numbers, and no other list.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn revoke(&self, authority: &Authority, serials: &[&str]) -> Result<()> {
        put(&self.crl(), &authority.list(serials)?)
    }

    fn root(&self) -> PathBuf {
        self.0.join("ca/root.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("ca/root-key.pem")
    }

    fn bundle(&self) -> PathBuf {
        self.0.join("bundle.pem")
    }

    fn crl(&self) -> PathBuf {
        self.0.join("crl.pem")
    }
}

/// Waits until the agent of a node trusts exactly these roots, named as `CN=NAME`, in alphabetical order.
///
/// # Errors
/// It does not in time.
pub fn wait_trusted(mesh: &Mesh, node: u8, roots: &[&str]) -> Result<()> {
    wait::until("the roots that are trusted", TAKEN, || {
        let report = mesh.agent(node)?.cli("certificates")?;
        let rows = report["roots"].as_array().into_iter().flatten();
        let mut found: Vec<_> = rows.filter_map(|row| row["subject"].as_str()).collect();
        found.sort_unstable();
        Ok((found == roots).then_some(()))
    })
}

/// Waits until all certificates in use on a node are signed by this authority, named as `CN=NAME`.
///
/// # Errors
/// They are not in time.
pub fn wait_signs(mesh: &Mesh, node: u8, issuer: &str) -> Result<()> {
    wait::until("certificates of the new authority", TAKEN, || {
        let report = mesh.agent(node)?.cli("certificates")?;
        let rows = report["certificates"].as_array();
        let all = rows.is_some_and(|rows| !rows.is_empty() && rows.iter().all(|row| row["issuer"] == issuer));
        Ok(all.then_some(()))
    })
}

fn put(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("beside");
    fs::write(&beside, text)?;
    fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
    fs::rename(&beside, path).with_context(|| format!("write {}", path.display()))
}
