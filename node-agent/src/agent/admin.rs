//! What the admin socket tells of the agent's state.

mod certificates;
mod explain;
mod services;

use super::configuration::Report;
use crate::{
    cli::RunConfig,
    context::Context,
    discover::manifest::print,
    observe::admin::{
        AdminState,
        api::{
            AgentStatus, CaptureReport, CertificateReport, ConfigReport, ExplainReport, PolicyOverview,
            ServiceRow, WorkloadRow,
        },
    },
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};
use tokio::{runtime::Handle, sync::Notify};
use tramline_core::{
    authz,
    workload::{Protocol, Workload, WorkloadUid},
};

/// Errors of the configuration in `/status`; `/config` has all.
const MAX_PROBLEMS: usize = 10;

/// Answers the admin socket.
#[derive(Clone)]
pub(super) struct State {
    instance: String,
    trust_domain: String,
    context: Arc<Context>,
    report: Arc<Report>,
    data: Handle,
    handover: Arc<Notify>,
}

impl State {
    pub(super) fn new(config: &RunConfig, context: Arc<Context>, report: Arc<Report>, data: Handle) -> Self {
        Self {
            instance: config.instance.clone(),
            trust_domain: config.trust_domain.clone(),
            context,
            report,
            data,
            handover: Arc::default(),
        }
    }

    /// Notified when a successor asks for the kernel.
    pub(super) fn handover_asked(&self) -> Arc<Notify> {
        self.handover.clone()
    }

    fn details(&self) -> BTreeMap<String, String> {
        let context = &self.context;
        let mut details: BTreeMap<String, String> = BTreeMap::new();
        for (event, count) in context.broker.counters() {
            details.insert(format!("ebpf.{event}"), count.to_string());
        }
        for fill in context.broker.fill() {
            details.insert(
                format!("map.{}", fill.map.to_lowercase()),
                format!("{}/{}", fill.entries, fill.capacity),
            );
        }
        let already_open: usize = context
            .pods
            .all()
            .iter()
            .map(|pod| pod.already_open.load(Ordering::Relaxed))
            .sum();
        details.insert(
            "connections.open_before_enrolment".to_owned(),
            already_open.to_string(),
        );
        details.insert(
            "connections.shed".to_owned(),
            context.shed.load(Ordering::Relaxed).to_string(),
        );
        details.insert(
            "handshakes.refused".to_owned(),
            context.handshakes.refused().to_string(),
        );
        details.insert(
            "tasks".to_owned(),
            self.data.metrics().num_alive_tasks().to_string(),
        );
        details.insert("tunnels".to_owned(), context.pool.connections().to_string());
        details
    }

    fn row(&self, workload: &Workload) -> WorkloadRow {
        let state = if self.context.pods.get(&workload.uid).is_some() {
            "enrolled".to_owned()
        } else if let Some(failure) = self.context.pods.failure(&workload.uid) {
            failure
        } else if workload.node != self.context.node {
            "remote".to_owned()
        } else {
            "not enrolled".to_owned()
        };
        WorkloadRow {
            uid: workload.uid.to_string(),
            namespace: workload.namespace.to_string(),
            name: workload.name.to_string(),
            node: workload.node.to_string(),
            identity: workload.identity.to_string(),
            addresses: workload.addresses.clone(),
            protocol: match workload.protocol {
                Protocol::Hbone => "hbone",
                Protocol::Plaintext => "plaintext",
            }
            .to_owned(),
            ready: workload.ready,
            state,
        }
    }
}

impl AdminState for State {
    fn hand_over(&self) {
        self.handover.notify_one();
    }

    fn status(&self) -> AgentStatus {
        AgentStatus {
            node: self.context.node.to_string(),
            instance: self.instance.clone(),
            trust_domain: self.trust_domain.clone(),
            generation: self.context.mesh.acknowledged(),
            config_from: self.report.in_force().from.as_str().to_owned(),
            config_errors: self.report.errors().len(),
            config_problems: self.report.errors().into_iter().take(MAX_PROBLEMS).collect(),
            enrolled: self.context.pods.all().len(),
            details: self.details(),
        }
    }

    fn workloads(&self) -> Vec<WorkloadRow> {
        let mesh = self.context.mesh.load();
        let mut rows: Vec<_> = mesh.workloads().map(|workload| self.row(workload)).collect();
        let node = self.context.node.to_string();
        rows.sort_by(|a, b| {
            (a.node != node, &a.namespace, &a.name).cmp(&(b.node != node, &b.namespace, &b.name))
        });
        rows
    }

    fn services(&self) -> Vec<ServiceRow> {
        // Nobody in particular asks: loads are the same for all.
        let nobody = WorkloadUid::new("");
        let balance = self.context.balancer.seen_by(&nobody);
        services::rows(&self.context.mesh.load_full(), &balance)
    }

    fn policies(&self) -> Vec<PolicyOverview> {
        authz::overview(&self.context.mesh.load_full())
    }

    fn certificates(&self) -> CertificateReport {
        certificates::report(&self.context.certificates, SystemTime::now())
    }

    fn explain(&self, from: &str, to: &str) -> Result<ExplainReport, String> {
        explain::connection(&self.context, from, to)
    }

    fn capture(&self, from: &str) -> Result<CaptureReport, String> {
        explain::capture(&self.context, from)
    }

    fn objects(&self) -> serde_json::Value {
        print::list(&self.report.in_force().objects.objects())
    }

    fn config(&self) -> ConfigReport {
        let mesh = self.context.mesh.load();
        let named = |kind: &str, namespace: &str, name: &str| format!("{kind} {namespace}/{name}");
        let mut objects: Vec<String> = mesh
            .workloads()
            .map(|workload| named("Pod", &workload.namespace, &workload.name))
            .chain(
                mesh.services()
                    .map(|service| named("Service", &service.namespace, &service.name)),
            )
            .chain(
                mesh.policies()
                    .map(|policy| format!("AuthorizationPolicy {}", policy.name)),
            )
            .chain(mesh.peer_authentications().map(|policy| {
                format!(
                    "PeerAuthentication {}/{}",
                    policy.meta.object.namespace, policy.meta.object.name
                )
            }))
            .collect();
        objects.sort_unstable();
        ConfigReport {
            generation: mesh.generation(),
            objects,
            errors: self.report.errors(),
        }
    }
}
