//! Writes the directory of Kubernetes manifests that the agents of a net read.
//!
//! Every object is one file. A file is written beside and renamed into place, so that an agent never reads half of it.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::net::{Net, Pod};

/// The configuration directory of a net.
#[derive(Clone, Debug)]
pub struct Manifests {
    dir: PathBuf,
}

/// What a Service says beside its name.
#[derive(Clone, Debug)]
pub struct Service<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its addresses, one or both families.
    pub vips: &'a [IpAddr],
    /// Its ports and the ports of the pods behind them.
    pub ports: &'a [(u16, u16)],
    /// The value of the label `app` of its pods.
    pub app: &'a str,
}

impl Manifests {
    /// The directory of `net`, empty at first.
    #[must_use]
    pub fn of(net: &Net) -> Self {
        Self {
            dir: net.run().dir().join("config"),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A namespace, enrolled in the mesh or not.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn namespace(&self, name: &str, enrolled: bool) -> Result<()> {
        let labels = if enrolled {
            "\n  labels:\n    istio.io/dataplane-mode: tramline"
        } else {
            ""
        };
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}{labels}\n");
        self.write(&format!("namespace-{name}"), &text)
    }

    /// A running, ready pod with the label `app`, and its service account.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn pod(&self, pod: &Pod, namespace: &str, service_account: &str, app: &str) -> Result<()> {
        self.pod_with(pod, namespace, service_account, app, &[])
    }

    /// [`Manifests::pod`] with more annotations.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn pod_with(
        &self,
        pod: &Pod,
        namespace: &str,
        service_account: &str,
        app: &str,
        annotations: &[(&str, &str)],
    ) -> Result<()> {
        let Pod {
            name,
            node,
            v4,
            v6,
            uid,
            ..
        } = pod;
        let netns = pod.netns.path().display();
        let mut more = String::new();
        for (key, value) in annotations {
            writeln!(more, "    {key}: {value:?}")?;
        }
        let version = name.rsplit('-').next().unwrap_or("v1");
        let account = format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {service_account}\n  namespace: {namespace}\n"
        );
        self.write(&format!("serviceaccount-{namespace}-{service_account}"), &account)?;
        let text = format!(
            "apiVersion: v1\n\
             kind: Pod\n\
             metadata:\n  name: {name}\n  namespace: {namespace}\n  uid: {uid}\n  \
             labels:\n    app: {app}\n    version: {version}\n  \
             annotations:\n    tramline.dev/netns: {netns}\n{more}\
             spec:\n  nodeName: {node}\n  serviceAccountName: {service_account}\n  \
             containers:\n  - name: {app}\n\
             status:\n  phase: Running\n  podIP: {v4}\n  podIPs:\n  - ip: {v4}\n  - ip: \"{v6}\"\n  \
             conditions:\n  - type: Ready\n    status: \"True\"\n",
        );
        self.write(&format!("pod-{namespace}-{name}"), &text)
    }

    /// Removes a pod's manifest.
    ///
    /// # Errors
    /// It is not there.
    pub fn remove_pod(&self, pod: &Pod, namespace: &str) -> Result<()> {
        self.remove(&format!("pod-{namespace}-{}", pod.name))
    }

    /// A Service that selects pods by their label `app`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn service(&self, service: &Service<'_>) -> Result<()> {
        let Service {
            name,
            namespace,
            vips,
            ports,
            app,
        } = service;
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n"
        );
        if let Some(first) = vips.first() {
            writeln!(text, "  clusterIP: \"{first}\"\n  clusterIPs:")?;
        }
        for vip in *vips {
            writeln!(text, "  - \"{vip}\"")?;
        }
        writeln!(text, "  selector:\n    app: {app}\n  ports:")?;
        for (port, target) in *ports {
            writeln!(
                text,
                "  - name: tcp-{port}\n    port: {port}\n    targetPort: {target}"
            )?;
        }
        self.write(&format!("service-{namespace}-{name}"), &text)
    }

    /// `PeerAuthentication` for a whole namespace: `STRICT`, `PERMISSIVE`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn peer_authentication(&self, namespace: &str, mode: &str) -> Result<()> {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata:\n  name: default\n  namespace: {namespace}\nspec:\n  mtls:\n    mode: {mode}\n"
        );
        self.write(&format!("peerauthentication-{namespace}"), &text)
    }

    /// An `AuthorizationPolicy` for the pods with label `app`: `ALLOW` or `DENY` for these principals.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn policy(
        &self,
        namespace: &str,
        name: &str,
        app: &str,
        action: &str,
        principals: &[&str],
    ) -> Result<()> {
        let mut text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata:\n  name: {name}\n  namespace: {namespace}\n\
             spec:\n  action: {action}\n  selector:\n    matchLabels:\n      app: {app}\n  \
             rules:\n  - from:\n    - source:\n        principals:\n"
        );
        for principal in principals {
            writeln!(text, "        - {principal:?}")?;
        }
        self.write(&format!("authorizationpolicy-{namespace}-{name}"), &text)
    }

    /// Any manifest, under a name of its own.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        // Beside the directory, not in it: an agent would read it.
        let draft = self.dir.with_extension("draft");
        let path = self.dir.join(format!("{name}.yaml"));
        fs::write(&draft, text)?;
        fs::rename(&draft, &path).with_context(|| format!("write {}", path.display()))
    }

    /// Removes what [`Manifests::write`] wrote.
    ///
    /// # Errors
    /// It is not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.dir.join(format!("{name}.yaml"));
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }
}
