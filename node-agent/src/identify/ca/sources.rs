//! The files that trust is made of, read together: of a file that is bad, the last good reading stays.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, UnixTime};
use tramline_core::identity::{SpiffeId, TrustDomains};
use webpki::KeyUsage;

use super::CaError;
use super::files::{Files, file_error};
use super::issue::{Leaf, leaf};
use super::root::Root;
use crate::identify::trust::{Anchors, Crl, certificates};

const MAX_BUNDLE: u64 = 1 << 20;
/// A list of 100,000 certificates has about 4 MiB.
const MAX_CRL: u64 = 16 << 20;

/// Files beside the state directory that say whom to trust. Both are watched.
#[derive(Debug, Clone, Default)]
pub struct TrustFiles {
    /// PEM certificates of roots, trusted beside the one that signs.
    pub bundle: Option<PathBuf>,
    /// PEM revocation lists.
    pub crl: Option<PathBuf>,
}

/// One good state of everything.
pub(super) struct Sources {
    pub(super) root: Arc<Root>,
    pub(super) anchors: Arc<Anchors>,
    /// The root that vouches for what `root` signs.
    pub(super) vouching: String,
    bundle: Vec<CertificateDer<'static>>,
    crl: Option<Vec<u8>>,
}

/// Reads the files, and tells what is wrong with those of which `kept` stays in force.
pub(super) struct Reader<'a> {
    pub(super) files: &'a Files,
    pub(super) given: &'a TrustFiles,
    pub(super) trust_domains: &'a TrustDomains,
    pub(super) provider: &'a CryptoProvider,
    pub(super) now: SystemTime,
}

impl Reader<'_> {
    /// The first reading: everything has to be good.
    pub(super) fn first(&self, root: Root) -> Result<Sources, CaError> {
        let bundle = self.bundle()?;
        let crl = self.crl()?;
        self.assemble(Arc::new(root), bundle, crl, None)
    }

    /// What is in force after another look, `None` if that is `kept`, and what was not taken.
    pub(super) fn again(&self, kept: &Sources) -> (Option<Sources>, Vec<CaError>) {
        let mut errors = Vec::new();
        let root = Root::load(self.files, self.trust_domains, self.now)
            .and_then(|root| root.ok_or_else(|| CaError::Gone(self.files.root())))
            .map(Arc::new);
        let root = root.unwrap_or_else(|error| {
            errors.push(error);
            kept.root.clone()
        });
        let root = if root.same(&kept.root) {
            kept.root.clone()
        } else {
            root
        };
        let bundle = self.bundle().unwrap_or_else(|error| {
            errors.push(error);
            kept.bundle.clone()
        });
        let crl = self.crl().unwrap_or_else(|error| {
            errors.push(error);
            kept.crl.clone()
        });
        let unchanged = Arc::ptr_eq(&root, &kept.root) && bundle == kept.bundle;
        if unchanged && crl == kept.crl {
            return (None, errors);
        }
        let taken = match self.assemble(root.clone(), bundle.clone(), crl, Some(kept)) {
            Ok(sources) => Some(sources),
            Err(error) => {
                errors.push(error);
                // A list that does not fit must keep no root out, and none in.
                let roots_alone = || self.assemble(root, bundle, kept.crl.clone(), Some(kept)).ok();
                if unchanged { None } else { roots_alone() }
            }
        };
        (taken, errors)
    }

    fn assemble(
        &self,
        root: Arc<Root>,
        bundle: Vec<CertificateDer<'static>>,
        crl: Option<Vec<u8>>,
        kept: Option<&Sources>,
    ) -> Result<Sources, CaError> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let roots: Vec<_> = root.as_root().into_iter().chain(&bundle).cloned().collect();
        let mut anchors = Anchors::new(&roots, self.trust_domains).map_err(|what| self.about_bundle(what))?;
        if let Some(pem) = &crl {
            let lists = Crl::read_all(pem, &anchors, algorithms).map_err(|what| self.about_crl(what))?;
            let kept = kept.into_iter().flat_map(|kept| kept.anchors.crls());
            for known in kept {
                if lists.iter().any(|list| known.outdates(list)) {
                    let issuer = &known.info().issuer;
                    return Err(self.about_crl(format!(
                        "the list of {issuer:?} is older than the one in force, which may revoke more"
                    )));
                }
            }
            anchors = anchors.with_crls(lists);
        }
        let vouching = self.vouching(&root, &anchors)?;
        Ok(Sources {
            root,
            anchors: Arc::new(anchors),
            vouching,
            bundle,
            crl,
        })
    }

    /// Tries the signer before it is used: nothing it signs would be of use if the trusted roots do not vouch for it.
    fn vouching(&self, root: &Root, anchors: &Anchors) -> Result<String, CaError> {
        let identity = SpiffeId::new(self.trust_domains.own(), "tramline", "probe")
            .map_err(|error| self.useless(error.to_string()))?;
        let Leaf { der, .. } = leaf(root, &identity, super::PROBE, self.now, self.provider)?;
        let now = UnixTime::since_unix_epoch(
            self.now
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        );
        anchors
            .verify(
                self.provider.signature_verification_algorithms.all,
                &der,
                root.intermediates(),
                now,
                KeyUsage::server_auth(),
            )
            .map(|root| root.fingerprint.clone())
            .map_err(|error| self.useless(error.to_string()))
    }

    fn bundle(&self) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let Some(path) = &self.given.bundle else {
            return Ok(Vec::new());
        };
        let pem = read(path, MAX_BUNDLE)?;
        let found = certificates(&pem).map_err(|what| self.about_bundle(what))?;
        if found.is_empty() {
            return Err(self.about_bundle("no PEM block CERTIFICATE in it".to_owned()));
        }
        // Of the file alone, so that an error names it and not what it is put together with.
        Anchors::new(&found, self.trust_domains).map_err(|what| self.about_bundle(what))?;
        Ok(found)
    }

    fn crl(&self) -> Result<Option<Vec<u8>>, CaError> {
        self.given
            .crl
            .as_ref()
            .map(|path| read(path, MAX_CRL))
            .transpose()
    }

    fn useless(&self, what: String) -> CaError {
        let path = self.files.root();
        CaError::Probe { path, what }
    }

    fn about_bundle(&self, what: String) -> CaError {
        let path = self.given.bundle.clone().unwrap_or_else(|| self.files.root());
        CaError::Given { path, what }
    }

    fn about_crl(&self, what: String) -> CaError {
        let path = self.given.crl.clone().unwrap_or_default();
        CaError::Given { path, what }
    }
}

/// Links are followed: mounted ConfigMaps and Secrets are links. Whoever may write the file decides who is trusted.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CaError> {
    let file = OpenOptions::new()
        .read(true)
        // Opening a pipe could wait for ever.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| file_error("open", path, source))?;
    let metadata = file
        .metadata()
        .map_err(|source| file_error("inspect", path, source))?;
    if !metadata.is_file() {
        return Err(CaError::FileType {
            path: path.into(),
            expected: "regular file",
        });
    }
    let (owner, agent) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if owner != agent && owner != 0 {
        return Err(CaError::Owner {
            path: path.into(),
            owner,
            agent,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(CaError::Mode {
            path: path.into(),
            mode,
            access: "change",
            wanted: mode & !0o022,
        });
    }
    let mut content = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut content)
        .map_err(|source| file_error("read", path, source))?;
    if content.len() as u64 > limit {
        return Err(CaError::Given {
            path: path.into(),
            what: format!("longer than {limit} bytes"),
        });
    }
    Ok(content)
}
