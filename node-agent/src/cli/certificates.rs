//! `tramline certificates`.

use std::path::Path;

use super::client;
use super::exit::Failure;
use super::output::{self, OutputArgs, Table, View};
use crate::observe::admin::api::CertificateReport;

pub(super) fn run(socket: &Path, args: &OutputArgs) -> Result<(), Failure> {
    let report: CertificateReport = client::get(socket, "/certificates")?;
    output::show_list(
        args.output,
        &report,
        "certificates and no roots of trust",
        |view| table(&report, view),
    )
}

/// Certificates, then the roots and revocation lists by which others are believed.
pub(super) fn table(report: &CertificateReport, view: View) -> Table {
    let mut header = vec!["KIND", "NAME", "EXPIRES", "IN"];
    if view.wide {
        header.extend([
            "RENEWED",
            "NOT-BEFORE",
            "SERIAL",
            "FINGERPRINT",
            "ISSUER",
            "DETAILS",
        ]);
    }
    let mut table = Table::new(&header);
    let mut row = |cells: [String; 4], wide: [String; 6]| {
        let mut cells = cells.to_vec();
        if view.wide {
            cells.extend(wide);
        }
        table.row(cells);
    };
    let none = || "-".to_owned();
    for certificate in &report.certificates {
        row(
            [
                "leaf".to_owned(),
                certificate.identity.clone(),
                certificate.not_after.clone(),
                left(certificate.expires_in_seconds),
            ],
            [
                certificate.renew_at.clone(),
                certificate.not_before.clone(),
                certificate.serial.clone(),
                none(),
                certificate.issuer.clone(),
                format!("root {}", certificate.root_fingerprint),
            ],
        );
    }
    for root in &report.roots {
        row(
            [
                "root".to_owned(),
                root.subject.clone(),
                root.not_after.clone(),
                left(root.expires_in_seconds),
            ],
            [
                none(),
                root.not_before.clone(),
                none(),
                root.fingerprint.clone(),
                none(),
                none(),
            ],
        );
    }
    for list in &report.revocation_lists {
        let verified = if list.verified {
            ""
        } else {
            ", signature not checked yet"
        };
        row(
            ["crl".to_owned(), list.issuer.clone(), none(), none()],
            [
                none(),
                list.this_update.clone(),
                none(),
                none(),
                list.issuer.clone(),
                format!(
                    "{} revoked{verified}, next promised {}",
                    list.revoked, list.next_update
                ),
            ],
        );
    }
    table
}

fn left(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(left) => output::age(left),
        Err(_) => "expired".to_owned(),
    }
}
