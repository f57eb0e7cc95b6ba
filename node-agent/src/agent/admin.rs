//! What the admin socket tells of the agent's state.

use super::configuration::Report;
use crate::{
    cli::RunConfig,
    context::Context,
    observe::admin::{
        AdminState,
        api::{AgentStatus, ConfigReport, WorkloadRow},
    },
};
use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering};
use tokio::runtime::Handle;
use tramline_core::workload::{Protocol, Workload};

/// Answers the admin socket.
pub(super) struct State {
    instance: String,
    trust_domain: String,
    context: Arc<Context>,
    report: Arc<Report>,
    data: Handle,
}

impl State {
    pub(super) fn new(config: &RunConfig, context: Arc<Context>, report: Arc<Report>, data: Handle) -> Self {
        Self {
            instance: config.instance.clone(),
            trust_domain: config.trust_domain.clone(),
            context,
            report,
            data,
        }
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
    fn status(&self) -> AgentStatus {
        AgentStatus {
            node: self.context.node.to_string(),
            instance: self.instance.clone(),
            trust_domain: self.trust_domain.clone(),
            generation: self.report.generation(),
            config_errors: self.report.errors().len(),
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
