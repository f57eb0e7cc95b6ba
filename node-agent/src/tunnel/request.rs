//! The CONNECT request of HBONE and its headers.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::FORWARDED;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};

use tramline_core::reason::Reason;

use super::{REASON_HEADER, TunnelError};

/// W3C Baggage, with which ztunnel tells who the source is.
pub(super) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// W3C Trace Context.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Who the tunnel's connection is for (RFC 7239).
#[derive(Debug, Clone)]
pub struct Forwarded {
    /// The client as its application bound it.
    pub client: SocketAddr,
    /// Host name of the service the client meant, if it meant one.
    pub host: Option<Arc<str>>,
}

/// What to ask of the other agent.
#[derive(Debug, Clone)]
pub struct ConnectRequest {
    /// Destination pod's address and target port.
    pub authority: SocketAddr,
    /// Who asks.
    pub forwarded: Forwarded,
    /// W3C baggage.
    pub baggage: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl ConnectRequest {
    /// The request as HTTP/2 sends it.
    pub(super) fn to_http(&self) -> Result<Request<()>, TunnelError> {
        let problem = |problem: String| TunnelError::Request {
            authority: self.authority,
            problem: Arc::from(problem),
        };
        let authority: Authority = self
            .authority
            .to_string()
            .parse()
            .map_err(|e| problem(format!("authority: {e}")))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from(authority);
        let headers = request.headers_mut();
        headers.insert(FORWARDED, self.forwarded.header().map_err(problem)?);
        for (name, value) in [(BAGGAGE, &self.baggage), (TRACEPARENT, &self.traceparent)] {
            if let Some(value) = value {
                let value = HeaderValue::from_str(value).map_err(|e| problem(format!("{name}: {e}")))?;
                headers.insert(name, value);
            }
        }
        Ok(request)
    }
}

impl Forwarded {
    /// The header that says it.
    ///
    /// # Errors
    /// The host is not a name: quoted or not, it would change what the header means.
    pub fn header(&self) -> Result<HeaderValue, String> {
        // `SocketAddr` prints IPv6 in the brackets RFC 7239, section 6, asks for.
        let mut text = format!("for=\"{}\"", self.client);
        if let Some(host) = &self.host {
            if !is_host_name(host) {
                return Err("forwarded: not a host name".to_owned());
            }
            text.push_str(";host=");
            text.push_str(host);
        }
        HeaderValue::from_str(&text).map_err(|e| format!("forwarded: {e}"))
    }
}

/// The Service's host name of the last `forwarded` element, if it is one that could be sent.
///
/// Informational, as [`forwarded_for`].
pub fn forwarded_host(headers: &HeaderMap) -> Option<&str> {
    let host = last_forwarded(headers, "host")?;
    is_host_name(host).then_some(host)
}

/// The client of the last `forwarded` element that names one with its port.
///
/// Informational: only the peer's identity is proven, so nothing may be decided on this.
pub fn forwarded_for(headers: &HeaderMap) -> Option<SocketAddr> {
    last_forwarded(headers, "for")?.parse().ok()
}

/// A parameter of the last `forwarded` element, without its quotes.
fn last_forwarded<'h>(headers: &'h HeaderMap, parameter: &str) -> Option<&'h str> {
    let text = headers.get_all(FORWARDED).iter().next_back()?.to_str().ok()?;
    text.rsplit(',').next()?.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case(parameter)
            .then(|| value.trim().trim_matches('"'))
    })
}

/// Host names need no quoting; anything else would change the header's meaning.
fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Why the peer refused. Only codes known here count, and never `ok`: a reason is shown, logged and counted.
///
/// An agent that gives no code may be ztunnel, which says 401 for one thing only: a policy's denial.
pub(super) fn reason(status: StatusCode, headers: &HeaderMap) -> Reason {
    let code = headers.get(REASON_HEADER).and_then(|value| value.to_str().ok());
    let known = |reason: &&Reason| **reason != Reason::Ok && Some(reason.as_str()) == code;
    Reason::ALL.iter().find(known).copied().unwrap_or(match status {
        StatusCode::UNAUTHORIZED if code.is_none() => Reason::PolicyDenied,
        _ => Reason::TunnelRefused,
    })
}

/// One header as text; absent when it is not text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(client: &str, host: Option<&str>) -> ConnectRequest {
        ConnectRequest {
            authority: "10.1.2.3:8080".parse().unwrap(),
            forwarded: Forwarded {
                client: client.parse().unwrap(),
                host: host.map(Into::into),
            },
            baggage: Some("k8s.namespace.name=a".to_owned()),
            traceparent: None,
        }
    }

    #[test]
    fn connect_has_only_an_authority_and_quotes_the_client() {
        let http = request("[fd00::1]:4711", Some("web.shop.svc.cluster.local"))
            .to_http()
            .unwrap();
        assert_eq!(http.method(), Method::CONNECT);
        assert_eq!((http.uri().scheme(), http.uri().path_and_query()), (None, None));
        assert_eq!(http.uri().authority().unwrap().as_str(), "10.1.2.3:8080");
        assert_eq!(
            http.headers()[FORWARDED],
            "for=\"[fd00::1]:4711\";host=web.shop.svc.cluster.local"
        );
        assert_eq!(
            forwarded_for(http.headers()),
            Some("[fd00::1]:4711".parse().unwrap())
        );
        assert_eq!(forwarded_host(http.headers()), Some("web.shop.svc.cluster.local"));
    }

    #[test]
    fn headers_that_would_change_their_meaning_are_not_sent() {
        assert!(
            request("10.0.0.1:1", Some("a;for=\"1.1.1.1:1\""))
                .to_http()
                .is_err()
        );
        let mut broken = request("10.0.0.1:1", None);
        broken.baggage = Some("a\r\nb".to_owned());
        assert!(broken.to_http().is_err());
    }

    #[test]
    fn reasons_are_known_codes_or_none() {
        let mut headers = HeaderMap::new();
        let refused = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(reason(refused, &headers), Reason::TunnelRefused);
        assert_eq!(reason(StatusCode::UNAUTHORIZED, &headers), Reason::PolicyDenied);
        for known in Reason::ALL.iter().filter(|r| **r != Reason::Ok) {
            headers.insert(REASON_HEADER, HeaderValue::from_static(known.as_str()));
            assert_eq!(reason(refused, &headers), *known);
            assert_eq!(reason(StatusCode::UNAUTHORIZED, &headers), *known);
        }
        for unknown in ["ok", "", "POLICY_DENIED", "policy_denied ", "anything"] {
            headers.insert(REASON_HEADER, HeaderValue::from_static(unknown));
            assert_eq!(
                reason(StatusCode::UNAUTHORIZED, &headers),
                Reason::TunnelRefused,
                "{unknown}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_a_peer_sends_gives_a_host_name_or_none(value in any::<Vec<u8>>(), wrapped: bool) {
            let value = if wrapped { [b"for=1.1.1.1:1;host=", &*value].concat() } else { value };
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                for name in [FORWARDED, TRACEPARENT, HeaderName::from_static(REASON_HEADER)] {
                    headers.insert(name, value.clone());
                }
                let _ = forwarded_for(&headers);
                prop_assert!(forwarded_host(&headers).is_none_or(is_host_name));
                prop_assert!(text(&headers, &TRACEPARENT).is_none_or(|text| text.bytes().all(|b| b >= b' ' || b == b'\t')));
                prop_assert_ne!(reason(StatusCode::UNAUTHORIZED, &headers), Reason::Ok);
            }
        }
    }

    #[test]
    fn forwarded_is_read_leniently_and_never_invented() {
        let mut headers = HeaderMap::new();
        assert_eq!(forwarded_for(&headers), None);
        for (value, expected) in [
            ("For=\"10.0.0.1:99\";host=x", Some("10.0.0.1:99")),
            ("for=1.1.1.1, by=x;for=\"10.0.0.2:7\"", Some("10.0.0.2:7")),
            ("for=unknown", None),
            ("for=10.0.0.1", None),
        ] {
            headers.insert(FORWARDED, HeaderValue::from_static(value));
            assert_eq!(
                forwarded_for(&headers),
                expected.map(|e| e.parse().unwrap()),
                "{value}"
            );
        }
        for (value, expected) in [
            ("for=1.1.1.1;HOST=\"a.b\"", Some("a.b")),
            ("host=a.b, for=1.1.1.1", None),
            ("host=\"a\\\"b\"", None),
            ("host=", None),
            ("host=a\u{e9}", None),
        ] {
            headers.insert(FORWARDED, HeaderValue::from_str(value).unwrap());
            assert_eq!(forwarded_host(&headers), expected, "{value}");
        }
    }
}
