use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::CertificateError;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tramline_core::reason::Reason;

use super::PeerRole;
use crate::identify::ca::{CaError, CertificateAuthority, TrustFiles};
use crate::identify::certificate::WorkloadCertificate;
use crate::identify::test_support::{HOUR, handshake, trust_domain, workload};
use crate::identify::verify::handshake_reason;

/// A state directory with its authority, a trust bundle and a list beside it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            dir: TempDir::new().unwrap(),
        };
        CertificateAuthority::open_or_create(place.dir.path(), &trust_domain()).unwrap();
        place
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("ca/root.pem")
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("ca/root-key.pem")
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle.pem")
    }

    fn crl(&self) -> PathBuf {
        self.dir.path().join("crl.pem")
    }

    /// Trusts the bundle and the list, where they are there.
    fn open(&self) -> CertificateAuthority {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<CertificateAuthority, CaError> {
        let there = |path: PathBuf| path.exists().then_some(path);
        let given = TrustFiles {
            bundle: there(self.bundle()),
            crl: there(self.crl()),
        };
        CertificateAuthority::open(self.dir.path(), &trust_domain().into(), given)
    }

    fn trust(&self, places: &[&Place]) {
        let pem: String = places
            .iter()
            .map(|place| fs::read_to_string(place.root()).unwrap())
            .collect();
        write(&self.bundle(), &pem);
    }

    /// A list of this place's root.
    fn revoke(&self, serials: &[&str], this_update: SystemTime) -> String {
        let key = KeyPair::from_pem(&fs::read_to_string(self.key()).unwrap()).unwrap();
        let root = CertificateDer::from_pem_slice(&fs::read(self.root()).unwrap()).unwrap();
        let issuer = Issuer::from_ca_cert_der(&root, key).unwrap();
        list(&issuer, serials, this_update)
    }
}

fn list(issuer: &Issuer<'_, KeyPair>, serials: &[&str], this_update: SystemTime) -> String {
    let revoked = |serial: &&str| RevokedCertParams {
        serial_number: serial_number(serial),
        revocation_time: this_update.into(),
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: this_update.into(),
        next_update: (this_update + HOUR).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .unwrap()
    .pem()
    .unwrap()
}

fn serial_number(hex: &str) -> SerialNumber {
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    SerialNumber::from_slice(&bytes)
}

fn write(path: &Path, text: &str) {
    let beside = path.with_extension("beside");
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, Permissions::from_mode(0o600)).unwrap();
    fs::rename(beside, path).unwrap();
}

fn issue(authority: &CertificateAuthority, name: &str) -> WorkloadCertificate {
    authority.issue(&workload(name), HOUR, SystemTime::now()).unwrap()
}

fn serial(certificate: &WorkloadCertificate) -> String {
    certificate.info(SystemTime::now()).serial
}

/// How a connection from `client` to `web` ends at either side.
async fn connect(client: &WorkloadCertificate, web: &WorkloadCertificate) -> [Result<(), std::io::Error>; 2] {
    let (near, far) = handshake(client.client_config(web.identity()), web.server_config()).await;
    [near.map(drop), far.map(drop)]
}

fn is(error: &std::io::Error, wanted: &CertificateError) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidCertificate(found)) if found == wanted)
}

fn reload(authority: &CertificateAuthority) {
    let errors = authority.reload();
    assert!(errors.is_empty(), "{errors:?}");
}

/// What the one complaint says.
fn complaint(authority: &CertificateAuthority) -> String {
    let errors = authority.reload();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(authority.reloads().errors, [errors[0].to_string()]);
    errors[0].to_string()
}

#[tokio::test]
async fn a_second_root_is_trusted_once_it_is_in_the_bundle_and_no_longer() {
    let (ours, theirs) = (Place::new(), Place::new());
    ours.trust(&[&ours]);
    theirs.trust(&[&ours]);
    let (here, there) = (ours.open(), theirs.open());
    let (client, web) = (issue(&here, "client"), issue(&there, "web"));
    let [near, _] = connect(&client, &web).await;
    let refused = near.unwrap_err();
    assert!(is(&refused, &CertificateError::UnknownIssuer), "{refused}");
    assert_eq!(handshake_reason(&refused), Reason::PeerUntrusted);

    ours.trust(&[&ours, &theirs]);
    reload(&here);
    // The certificate of before the change: trust is asked at each handshake.
    let [near, far] = connect(&client, &web).await;
    near.unwrap();
    far.unwrap();
    let [near, far] = connect(&web, &client).await;
    near.unwrap();
    far.unwrap();
    let snapshot = here.trust().snapshot();
    assert_eq!((snapshot.generation, snapshot.roots.len()), (1, 2));

    ours.trust(&[&ours]);
    reload(&here);
    let [_, far] = connect(&web, &client).await;
    let refused = far.unwrap_err();
    assert!(is(&refused, &CertificateError::UnknownIssuer), "{refused}");
    assert_eq!(here.reloads().ok, 2);
}

/// Waits for `change` to be told to whoever is connected with `peer`.
async fn told(
    authority: &CertificateAuthority,
    peer: &WorkloadCertificate,
    role: PeerRole,
    change: impl FnOnce(),
) -> String {
    let chain = peer.chain().to_vec();
    let peer = Arc::new(authority.trust().guard().over(chain, role));
    let watched = tokio::spawn({
        let peer = peer.clone();
        async move { peer.lost().await }
    });
    // A change that does not concern the peer lets it be.
    let trust = authority.trust();
    trust.replace(trust.present.load().anchors.clone());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!watched.is_finished(), "cut without need");
    peer.now().unwrap();
    change();
    reload(authority);
    // Nothing has waited since: whoever asks is told before those who wait.
    peer.now().unwrap_err();
    let told = tokio::time::timeout(Duration::from_secs(1), watched).await;
    told.expect("told within a second").unwrap().to_string()
}

#[tokio::test]
async fn a_removed_root_and_a_revoked_certificate_are_told_to_live_connections_at_once() {
    for role in [PeerRole::Client, PeerRole::Server] {
        let (ours, theirs) = (Place::new(), Place::new());
        ours.trust(&[&theirs]);
        write(&ours.crl(), &ours.revoke(&[], SystemTime::now() - HOUR));
        let here = ours.open();
        let (mine, foreign) = (issue(&here, "web"), issue(&theirs.open(), "client"));
        let revoked = [serial(&mine)];
        let revoke = || write(&ours.crl(), &ours.revoke(&[&revoked[0]], SystemTime::now()));
        let why = told(&here, &mine, role, revoke).await;
        assert!(why.contains("Revoked"), "{why}");
        let why = told(&here, &foreign, role, || ours.trust(&[&ours])).await;
        assert!(why.contains("UnknownIssuer"), "{why}");
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_in_both_directions_and_others_are_not() {
    let place = Place::new();
    write(&place.crl(), &place.revoke(&[], SystemTime::now() - HOUR));
    let authority = place.open();
    let (bad, good) = (issue(&authority, "web"), issue(&authority, "client"));
    for result in connect(&good, &bad).await {
        result.unwrap();
    }
    let revoked = serial(&bad);
    write(&place.crl(), &place.revoke(&[&revoked], SystemTime::now()));
    reload(&authority);
    let [near, _] = connect(&good, &bad).await;
    let [_, far] = connect(&bad, &good).await;
    for error in [near.unwrap_err(), far.unwrap_err()] {
        assert!(is(&error, &CertificateError::Revoked), "{error}");
        assert_eq!(handshake_reason(&error), Reason::PeerUntrusted);
    }
    for result in connect(&good, &issue(&authority, "web")).await {
        result.unwrap();
    }
    let crls = authority.trust().snapshot().crls;
    assert_eq!((crls.len(), crls[0].revoked, crls[0].verified), (1, 1, true));
}

#[tokio::test]
async fn a_list_that_has_lapsed_still_revokes_and_refuses_nobody_else() {
    let place = Place::new();
    let bad = issue(&place.open(), "web");
    // Its next one was due a minute ago.
    let lapsed = SystemTime::now() - HOUR - Duration::from_secs(60);
    write(&place.crl(), &place.revoke(&[&serial(&bad)], lapsed));
    let authority = place.open();
    let good = issue(&authority, "client");
    let [near, _] = connect(&good, &bad).await;
    assert!(is(&near.unwrap_err(), &CertificateError::Revoked));
    for result in connect(&good, &issue(&authority, "web")).await {
        result.unwrap();
    }
    assert!(authority.trust().snapshot().crls[0].next_update < SystemTime::now());
}

#[test]
fn a_bad_bundle_is_named_and_the_last_good_one_stays() {
    let (place, other) = (Place::new(), Place::new());
    place.trust(&[&place, &other]);
    let authority = place.open();
    let in_force = authority.trust().snapshot();
    assert_eq!(in_force.roots.len(), 2);
    let pem = fs::read_to_string(place.root()).unwrap();
    let foreign = {
        let dir = TempDir::new().unwrap();
        let domain = tramline_core::identity::TrustDomain::new("other.example").unwrap();
        CertificateAuthority::open_or_create(dir.path(), &domain).unwrap();
        fs::read_to_string(dir.path().join("ca/root.pem")).unwrap()
    };
    let leaf = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
    for (text, wanted) in [
        (String::new(), "no PEM block CERTIFICATE"),
        ("hello".to_owned(), "no PEM block CERTIFICATE"),
        (pem[..pem.len() / 2].to_owned(), "certificate 1: not PEM"),
        (format!("{pem}{foreign}"), "certificate 2: \"CN=Tramline root"),
        (
            format!("{pem}{}", leaf.cert.pem()),
            "is not the certificate of an authority",
        ),
        ("x".repeat((1 << 20) + 1), "longer than"),
    ] {
        write(&place.bundle(), &text);
        let said = complaint(&authority);
        assert!(said.contains(wanted) && said.contains("bundle.pem"), "{said}");
        assert_eq!(authority.trust().snapshot(), in_force);
        assert!(place.try_open().is_err(), "nothing stands in for it at the start");
    }
    place.trust(&[&place, &other]);
    fs::set_permissions(place.bundle(), Permissions::from_mode(0o666)).unwrap();
    let said = complaint(&authority);
    assert!(said.contains("chmod 0644"), "{said}");
    fs::remove_file(place.bundle()).unwrap();
    let said = complaint(&authority);
    assert!(said.contains("cannot open"), "{said}");
    assert_eq!(authority.trust().snapshot(), in_force);

    place.trust(&[&place]);
    reload(&authority);
    assert_eq!(authority.trust().snapshot().roots.len(), 1);
    assert!(authority.reloads().errors.is_empty());
    assert_eq!(authority.reloads().failed, 8);
}

#[test]
fn a_bad_list_is_named_and_the_last_good_one_stays() {
    let (place, other) = (Place::new(), Place::new());
    let now = SystemTime::now();
    write(&place.crl(), &place.revoke(&["41", "42"], now));
    let authority = place.open();
    let in_force = authority.trust().snapshot();
    // The root's name, another key.
    let forged = {
        let root = CertificateDer::from_pem_slice(&fs::read(place.root()).unwrap()).unwrap();
        let key = KeyPair::from_pem(&fs::read_to_string(other.key()).unwrap()).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&root).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = parsed
            .subject()
            .iter_common_name()
            .next()
            .unwrap()
            .as_str()
            .unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        list(&Issuer::new(params, key), &[], now + HOUR)
    };
    let newer = place.revoke(&["41"], now + Duration::from_secs(60));
    for (text, wanted) in [
        (String::new(), "no PEM block X509 CRL"),
        (newer[..newer.len() / 2].to_owned(), "list 1: not PEM"),
        (forged, "is not signed by that root"),
        (place.revoke(&[], now - HOUR), "older than the one in force"),
        (format!("{newer}{newer}"), "list 2: a second list of"),
        (fs::read_to_string(place.root()).unwrap(), "no PEM block X509 CRL"),
    ] {
        write(&place.crl(), &text);
        let said = complaint(&authority);
        assert!(said.contains(wanted) && said.contains("crl.pem"), "{said}");
        assert_eq!(authority.trust().snapshot(), in_force);
    }
    write(&place.crl(), &newer);
    reload(&authority);
    assert_eq!(authority.trust().snapshot().crls[0].revoked, 1);

    // Of a root that is not trusted it is kept and not used; then the root comes.
    write(&place.crl(), &(newer.clone() + &other.revoke(&["41"], now)));
    reload(&authority);
    assert!(!authority.trust().snapshot().crls[1].verified);
}

#[tokio::test]
async fn another_authority_that_signs_supersedes_what_the_first_signed() {
    let (place, next) = (Place::new(), Place::new());
    place.trust(&[&place, &next]);
    let authority = place.open();
    let before = issue(&authority, "web");
    let issuer = |certificate: &WorkloadCertificate| certificate.info(SystemTime::now()).issuer_fingerprint;

    // The key is there first: they do not belong together, so nothing changes.
    fs::copy(next.key(), place.key()).unwrap();
    let said = complaint(&authority);
    assert!(said.contains("another certificate's"), "{said}");
    assert_eq!(issuer(&issue(&authority, "web")), issuer(&before));
    fs::copy(next.root(), place.root()).unwrap();
    reload(&authority);
    let after = issue(&authority, "web");
    assert_ne!(issuer(&after), issuer(&before));
    assert!(before.superseded().is_cancelled() && !after.superseded().is_cancelled());
    // In the bundle is the first root still.
    for result in connect(&before, &after).await {
        result.unwrap();
    }
    place.trust(&[&next]);
    reload(&authority);
    let [_, far] = connect(&before, &after).await;
    assert!(is(&far.unwrap_err(), &CertificateError::UnknownIssuer));
    for result in connect(&after, &after).await {
        result.unwrap();
    }
    assert_eq!(authority.trust().snapshot().roots.len(), 1);
}

#[tokio::test]
async fn an_authority_below_a_root_signs_if_the_root_is_in_the_bundle() {
    let place = Place::new();
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "a company's root");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&root_key).unwrap();
    let above = Issuer::new(params, root_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
        .distinguished_name
        .push(DnType::CommonName, "the mesh's authority");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let below = params.signed_by(&key, &above).unwrap();
    write(&place.key(), &key.serialize_pem());
    write(&place.root(), &below.pem());
    let error = place.try_open().err().unwrap().to_string();
    assert!(
        error.contains("root.pem signs would be refused") && error.contains("--trust-bundle"),
        "{error}"
    );

    write(&place.bundle(), &root.pem());
    let authority = place.open();
    let (client, web) = (issue(&authority, "client"), issue(&authority, "web"));
    assert_eq!(web.chain().len(), 2);
    for result in connect(&client, &web).await {
        result.unwrap();
    }
    let info = web.info(SystemTime::now());
    assert_ne!(info.issuer_fingerprint, info.root_fingerprint);
    assert_eq!(
        info.root_fingerprint,
        authority.trust().snapshot().roots[0].fingerprint
    );
    // The company takes the authority back: what it signed is refused, though its own list names nobody.
    write(&place.crl(), &list(&above, &[&hex(&below)], SystemTime::now()));
    let error = place.try_open().err().unwrap().to_string();
    assert!(error.contains("CertRevoked"), "{error}");
}

fn hex(certificate: &rcgen::Certificate) -> String {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der()).unwrap();
    parsed
        .raw_serial()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn a_root_vouches_for_nobody_after_its_end() {
    let place = Place::new();
    let authority = place.open();
    let trust = authority.trust();
    let end = trust.snapshot().roots[0].not_after;
    let web = authority.forge(&workload("web"), |params| {
        params.not_after = (end + HOUR).into();
    });
    let at = |at: SystemTime| {
        let now =
            rustls_pki_types::UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        trust.verify(&web.chain()[0], &[], now, webpki::KeyUsage::server_auth())
    };
    at(end - HOUR).unwrap();
    assert!(matches!(
        at(end).unwrap_err(),
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
    ));
}
