//! security.istio.io PeerAuthentication.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tramline_core::authz::Operation;
use tramline_core::object::{Kind, ObjectError, ObjectRef};
use tramline_core::peer_authentication::{Mode, PeerAuthentication};

use super::bounds::Key;
use super::given::Given;
use super::meta::{Metadata, WorkloadSelector};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PeerAuthenticationManifest {
    #[serde(rename = "apiVersion")]
    _api_version: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Spec>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    selector: Given<WorkloadSelector>,
    mtls: Given<Mtls>,
    port_level_mtls: Given<BTreeMap<Key, Given<Mtls>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mtls {
    mode: Given<String>,
}

impl PeerAuthenticationManifest {
    pub(super) fn into_policy(
        self,
        origin: &Arc<str>,
        errors: &mut Vec<ObjectError>,
    ) -> Option<PeerAuthentication> {
        let meta = self
            .metadata
            .into_meta(Kind::PeerAuthentication, origin, errors)?;
        let spec = self.spec.unwrap_or_default();
        let selector = WorkloadSelector::into_selector(spec.selector.0, &meta.object, errors);
        let mode = mode(spec.mtls, "spec.mtls.mode", &meta.object, errors);
        let mut ports = BTreeMap::new();
        for (Key(key), mtls) in spec.port_level_mtls.0.unwrap_or_default() {
            let field = format!("spec.portLevelMtls.{key}");
            match Operation::port(&key) {
                Ok(port) => {
                    ports.insert(
                        port,
                        self::mode(mtls, &format!("{field}.mode"), &meta.object, errors),
                    );
                }
                Err(error) => errors.push(ObjectError::new(&meta.object, field, error.to_string())),
            }
        }
        Some(PeerAuthentication {
            meta,
            selector,
            mode,
            ports,
        })
    }
}

fn mode(Given(mtls): Given<Mtls>, field: &str, object: &ObjectRef, errors: &mut Vec<ObjectError>) -> Mode {
    match mtls.and_then(|mtls| mtls.mode.0).as_deref() {
        None | Some("UNSET") => Mode::Unset,
        // DISABLE: Istio's ambient mode cannot speak plaintext to a peer that offers mTLS either, and reads it so.
        Some("PERMISSIVE" | "DISABLE") => Mode::Permissive,
        Some("STRICT") => Mode::Strict,
        Some(other) => {
            let problem = format!("`{other}` is none of UNSET, PERMISSIVE, STRICT, DISABLE");
            errors.push(ObjectError::new(object, field, problem));
            Mode::Unset
        }
    }
}

#[cfg(test)]
mod tests;
