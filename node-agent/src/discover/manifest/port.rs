//! Ports and protocols, the same for every kind that has some.

use tramline_core::object::{ObjectError, ObjectRef};

use super::one_of;

/// The mesh handles TCP; an absent protocol is TCP.
pub(super) fn is_tcp(
    protocol: Option<&str>,
    port: &str,
    object: &ObjectRef,
    errors: &mut Vec<ObjectError>,
) -> bool {
    const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
    let protocol = protocol.filter(|protocol| !protocol.is_empty());
    one_of(protocol, PROTOCOLS, &format!("{port}.protocol"), object, errors);
    matches!(protocol, None | Some("TCP"))
}

/// Whether a number can be a port's.
pub(super) fn is_port(number: u16, field: &str, object: &ObjectRef, errors: &mut Vec<ObjectError>) -> bool {
    if number == 0 {
        errors.push(ObjectError::new(object, field, "is 0; ports begin at 1"));
    }
    number != 0
}
