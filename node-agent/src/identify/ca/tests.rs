use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tramline_core::identity::{SpiffeId, TrustDomain};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::files::Files;
use super::issue::leaf;
use super::root::Root;
use super::{CaError, CertificateAuthority};
use crate::identify::peer::{peer_identity, single_uri};
use crate::identify::test_support::{HOUR, trust_domain, workload};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn open(dir: &Path) -> Result<CertificateAuthority, CaError> {
    CertificateAuthority::open_or_create(dir, &trust_domain())
}

fn refused(dir: &Path) -> CaError {
    open(dir).err().expect("the authority opened")
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A directory with a root in it.
fn made() -> TempDir {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap();
    dir
}

#[test]
fn the_root_is_made_once_and_is_an_authority_of_one_trust_domain() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("not/there/yet");
    let first = open(&state).unwrap();
    let again = open(&state).unwrap();
    assert_eq!(
        first.signer.load().root.certificate(),
        again.signer.load().root.certificate()
    );
    assert_eq!(first.not_after(), again.not_after());

    let signer = first.signer.load();
    let (_, root) = X509Certificate::from_der(signer.root.certificate()).unwrap();
    let constraints = root.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = root.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    assert_eq!(single_uri(&root), Ok("spiffe://cluster.local"));
    let life = first.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(life > 3649 * DAY && life <= 3650 * DAY, "{life:?}");

    assert_eq!(mode(&state.join("ca")), 0o700);
    assert_eq!(mode(&state.join("ca/root-key.pem")), 0o600);
    let names: HashSet<_> = fs::read_dir(state.join("ca"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        names,
        HashSet::from(["lock", "root.pem", "root-key.pem"].map(Into::into))
    );
}

#[test]
fn agents_that_start_together_get_one_root() {
    for _ in 0..5 {
        let dir = TempDir::new().unwrap();
        let together = Barrier::new(8);
        let roots: HashSet<Vec<u8>> = thread::scope(|scope| {
            let agents: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        open(dir.path())
                            .unwrap()
                            .signer
                            .load()
                            .root
                            .certificate()
                            .to_vec()
                    })
                })
                .collect();
            agents.into_iter().map(|agent| agent.join().unwrap()).collect()
        });
        assert_eq!(roots.len(), 1);
    }
}

#[test]
fn a_start_that_was_cut_short_is_finished() {
    let dir = made();
    let key = fs::read(dir.path().join("ca/root-key.pem")).unwrap();
    // Killed between the two files, and another time within one.
    fs::remove_file(dir.path().join("ca/root.pem")).unwrap();
    fs::write(dir.path().join("ca/root.new"), "half a cert").unwrap();
    open(dir.path()).unwrap();
    assert_eq!(fs::read(dir.path().join("ca/root-key.pem")).unwrap(), key);
    open(dir.path()).unwrap();
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_remedy() {
    let dir = made();
    let key = dir.path().join("ca/root-key.pem");
    for bits in [0o640, 0o604, 0o620, 0o602, 0o610] {
        set_mode(&key, bits);
        let error = refused(dir.path());
        assert!(
            matches!(error, CaError::Mode { mode, .. } if mode == bits),
            "{error}"
        );
        assert!(error.to_string().contains("chmod 0600"), "{error}");
    }
    set_mode(&key, 0o400);
    open(dir.path()).unwrap();
}

#[test]
fn a_root_or_directory_that_others_may_change_is_refused() {
    let dir = made();
    for (name, bad, good) in [("ca/root.pem", 0o664, 0o644), ("ca", 0o770, 0o700)] {
        let path = dir.path().join(name);
        set_mode(&path, bad);
        let error = refused(dir.path());
        assert!(matches!(error, CaError::Mode { access: "change", .. }), "{error}");
        set_mode(&path, good);
        open(dir.path()).unwrap();
    }
}

#[test]
fn a_key_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return; // only root can give files away
    }
    for name in ["ca", "ca/root.pem", "ca/root-key.pem"] {
        let dir = made();
        chown(dir.path().join(name), Some(1), None).unwrap();
        let error = refused(dir.path());
        assert!(
            matches!(
                error,
                CaError::Owner {
                    owner: 1,
                    agent: 0,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn links_and_pipes_are_not_followed() {
    let dir = made();
    let key = dir.path().join("ca/root-key.pem");
    fs::rename(&key, dir.path().join("key")).unwrap();
    symlink(dir.path().join("key"), &key).unwrap();
    assert!(matches!(refused(dir.path()), CaError::FileType { .. }));
    fs::remove_file(&key).unwrap();
    nix::unistd::mkfifo(&key, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(refused(dir.path()), CaError::FileType { .. }));
}

#[test]
fn another_trust_domain_is_refused() {
    let dir = made();
    let other = TrustDomain::new("other.example").unwrap();
    let error = CertificateAuthority::open_or_create(dir.path(), &other)
        .err()
        .unwrap();
    assert!(
        matches!(&error, CaError::TrustDomain { found, .. } if found == "spiffe://cluster.local"),
        "{error}"
    );
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let (dir, other) = (made(), made());
    let (key, root) = (dir.path().join("ca/root-key.pem"), dir.path().join("ca/root.pem"));
    let good = fs::read(&key).unwrap();
    fs::copy(other.path().join("ca/root-key.pem"), &key).unwrap();
    assert!(matches!(refused(dir.path()), CaError::Content { .. }));
    fs::write(&key, "").unwrap();
    assert!(matches!(refused(dir.path()), CaError::Content { path, .. } if path == key));
    fs::write(&key, vec![b'x'; 70_000]).unwrap();
    assert!(matches!(refused(dir.path()), CaError::Content { path, .. } if path == key));
    fs::remove_file(&key).unwrap();
    assert!(matches!(refused(dir.path()), CaError::MissingKey { .. }));
    fs::write(&key, good).unwrap();
    set_mode(&key, 0o600);
    open(dir.path()).unwrap();

    let pem = fs::read(&root).unwrap();
    let two = [pem.clone(), fs::read(other.path().join("ca/root.pem")).unwrap()].concat();
    for broken in [&two, &pem[..pem.len() / 2], b""] {
        fs::write(&root, broken).unwrap();
        assert!(matches!(refused(dir.path()), CaError::Content { path, .. } if path == root));
    }
}

#[test]
fn an_expired_root_is_refused_and_outlives_what_it_signed() {
    let dir = made();
    let files = Files::open(dir.path()).unwrap();
    let authority = open(dir.path()).unwrap();
    let end = authority.not_after();
    assert!(
        Root::load(&files, &trust_domain().into(), end - HOUR)
            .unwrap()
            .is_some()
    );
    let expired = Root::load(&files, &trust_domain().into(), end).err().unwrap();
    assert!(matches!(expired, CaError::RootExpired(_)));

    let last = authority.issue(&workload("web"), DAY, end - HOUR).unwrap();
    assert_eq!(last.not_after(), end);
    let none = authority.issue(&workload("web"), DAY, end).err().unwrap();
    assert!(matches!(none, CaError::Lifetime));
}

#[test]
fn a_certificate_says_who_and_for_what_and_no_more() {
    let dir = made();
    let authority = open(dir.path()).unwrap();
    let now = SystemTime::now();
    let provider = authority.trust.provider();
    let signer = authority.signer.load_full();
    let leaf = || {
        leaf(&signer.root, &workload("web"), HOUR, now, provider)
            .unwrap()
            .der
    };
    let web = leaf();
    assert_eq!(peer_identity(&web).unwrap(), workload("web"));

    let (_, parsed) = X509Certificate::from_der(&web).unwrap();
    assert_eq!(parsed.subject().iter().count(), 0);
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    // RFC 5280 section 4.2.1.6, as the subject is empty.
    assert!(names.critical);
    assert_eq!(names.value.general_names.len(), 1);
    let usage = parsed.key_usage().unwrap().unwrap().value;
    assert_eq!(usage.flags, 1, "digitalSignature alone");
    let purpose = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(purpose.server_auth && purpose.client_auth && !purpose.any && purpose.other.is_empty());
    let validity = parsed.validity();
    let seconds = i64::try_from(now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    assert_eq!(validity.not_before.timestamp(), seconds - 60);
    assert_eq!(validity.not_after.timestamp(), seconds + 3600);

    let serials: HashSet<_> = (0..16)
        .map(|_| {
            let leaf = leaf();
            let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
            assert_eq!(parsed.raw_serial().len(), 16);
            assert!(parsed.raw_serial()[0] & 0x80 == 0, "negative");
            parsed.raw_serial().to_vec()
        })
        .collect();
    assert_eq!(serials.len(), 16);
}

#[test]
fn nothing_is_issued_to_strangers_or_for_no_time() {
    let dir = made();
    let authority = open(dir.path()).unwrap();
    let now = SystemTime::now();
    let stranger = SpiffeId::parse("spiffe://other.example/ns/shop/sa/web").unwrap();
    let error = authority.issue(&stranger, HOUR, now).err().unwrap();
    assert!(matches!(error, CaError::ForeignIdentity(who) if who == stranger));
    for ttl in [Duration::ZERO, Duration::MAX] {
        let error = authority.issue(&workload("web"), ttl, now).err().unwrap();
        assert!(matches!(error, CaError::Lifetime), "{ttl:?}: {error}");
    }
}
