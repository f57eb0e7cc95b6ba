//! Certificates and trust as the admin socket tells them.

use crate::{
    identify::{CertStore, CertificateInfo, CrlInfo, RootInfo},
    observe::admin::api::{CertificateReport, CertificateRow, RevocationListRow, RootRow},
};
use std::time::SystemTime;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What the store holds and believes at `now`.
pub(super) fn report(store: &CertStore, now: SystemTime) -> CertificateReport {
    let trust = store.trust().snapshot();
    CertificateReport {
        certificates: store
            .certificates()
            .iter()
            .map(|certificate| certificate_row(certificate, now))
            .collect(),
        roots: trust.roots.iter().map(|root| root_row(root, now)).collect(),
        revocation_lists: trust.crls.iter().map(list_row).collect(),
    }
}

fn certificate_row(certificate: &CertificateInfo, now: SystemTime) -> CertificateRow {
    CertificateRow {
        identity: certificate.identity.to_string(),
        serial: certificate.serial.clone(),
        not_before: rfc3339(certificate.not_before),
        not_after: rfc3339(certificate.not_after),
        expires_in_seconds: seconds_between(now, certificate.not_after),
        renew_at: rfc3339(certificate.renew_at),
        issuer: certificate.issuer.clone(),
        issuer_fingerprint: certificate.issuer_fingerprint.clone(),
        root_fingerprint: certificate.root_fingerprint.clone(),
    }
}

fn root_row(root: &RootInfo, now: SystemTime) -> RootRow {
    RootRow {
        subject: root.subject.clone(),
        fingerprint: root.fingerprint.clone(),
        not_before: rfc3339(root.not_before),
        not_after: rfc3339(root.not_after),
        expires_in_seconds: seconds_between(now, root.not_after),
    }
}

fn list_row(list: &CrlInfo) -> RevocationListRow {
    RevocationListRow {
        issuer: list.issuer.clone(),
        this_update: rfc3339(list.this_update),
        next_update: rfc3339(list.next_update),
        revoked: list.revoked,
        verified: list.verified,
    }
}

/// To the second: nobody needs more, and it reads better.
fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    // Only a year beyond 9999 cannot be written.
    whole.format(&Rfc3339).unwrap_or_else(|_| "unknown".to_owned())
}

fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match to.duration_since(from) {
        Ok(left) => seconds(left),
        Err(error) => -seconds(error.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_whole_seconds_and_what_expired_counts_backwards() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(rfc3339(at), "1970-01-01T00:00:01Z");
        let later = at + Duration::from_secs(60);
        assert_eq!(
            (seconds_between(at, later), seconds_between(later, at)),
            (60, -60)
        );
    }
}
