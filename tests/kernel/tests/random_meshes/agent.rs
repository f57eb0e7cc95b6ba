//! What the agent does with its decisions: rows and verdicts by the code of the agent, in its order, but stopped at any
//! point in between.

use crate::{
    stage::{Came, Dial, From, Stage, pod_at},
    state::State,
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tramline_core::{
    mesh::Basis,
    verdict::{KernelVerdict as Verdict, ServiceVerdict, kernel_verdict},
};
use tramline_fuzz::{mutate::Random, world::PODS};
use tramline_node_agent::broker::{KernelVerdict, PodRows, ServiceEndpoint, Versions};

/// A verdict that was decided and is not left yet.
struct Pending {
    pod: usize,
    to: SocketAddr,
    verdict: KernelVerdict,
    versions: Versions,
}

/// See the module.
pub struct Agent {
    pub stage: Stage,
    state: State,
    basis: Vec<Option<Basis>>,
    rows: Vec<Option<PodRows>>,
    /// What leads out of the mesh, by pod and address.
    outside: HashMap<(usize, SocketAddr), ()>,
    /// Services that the kernel resolves.
    services: HashMap<(usize, SocketAddr), ServiceVerdict>,
    pending: Vec<Pending>,
}

impl Agent {
    pub fn new(stage: Stage, state: State) -> Self {
        let mut agent = Self {
            stage,
            basis: vec![None; PODS.len()],
            rows: vec![None; PODS.len()],
            outside: HashMap::new(),
            services: HashMap::new(),
            pending: Vec::new(),
            state,
        };
        agent.sweep();
        (0..PODS.len()).for_each(|pod| agent.project(pod));
        agent
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Puts a configuration in force, and calls `between` wherever a connection may come in between.
    pub fn put(&mut self, next: State, mut between: impl FnMut(&mut Self, &[&State])) {
        let before = std::mem::replace(&mut self.state, next.clone());
        let both = [&before, &next];
        between(self, &both);
        self.sweep();
        between(self, &both);
        for pod in 0..PODS.len() {
            self.project(pod);
            between(self, &both);
        }
    }

    /// As `Verdicts::sweep`.
    fn sweep(&mut self) {
        for pod in 0..PODS.len() {
            let basis = self.state.mesh.basis(&self.state.workload(pod).uid);
            if self.basis[pod] != basis {
                self.basis[pod] = basis;
                self.renew(pod);
            }
        }
        let state = &self.state;
        let gone = self
            .outside
            .extract_if(|(pod, to), ()| !state.is_outside(*pod, *to));
        for ((pod, to), ()) in gone.collect::<Vec<_>>() {
            let id = self.stage.id(pod);
            self.stage.broker.remove_verdict(id, to).expect("remove");
        }
        // As `services::is_still`.
        let is_still = |pod: usize, to: SocketAddr, left: &ServiceVerdict| {
            let now = state.mesh.service_by_vip(to.ip());
            let mut outside = left
                .endpoints
                .iter()
                .filter(|(_, verdict)| *verdict == Some(Verdict::Outside));
            now.is_some_and(|now| Arc::ptr_eq(now, &left.service))
                && outside.all(|(address, _)| state.is_outside(pod, *address))
        };
        let gone = self
            .services
            .extract_if(|(pod, to), left| !is_still(*pod, *to, left));
        for ((pod, to), _) in gone.collect::<Vec<_>>() {
            let id = self.stage.id(pod);
            self.stage.broker.remove_service(id, to).expect("remove");
        }
    }

    /// As `pods::update`.
    fn project(&mut self, pod: usize) {
        let rows = PodRows::of(&self.state.mesh, self.state.workload(pod));
        let id = self.stage.id(pod);
        let written = match &self.rows[pod] {
            Some(before) => self.stage.broker.change(id, before, &rows),
            None => self.stage.broker.update(id, &rows),
        };
        written.expect("rows");
        self.rows[pod] = Some(rows);
    }

    /// Makes all verdicts about a pod void.
    pub fn renew(&mut self, pod: usize) {
        let id = self.stage.id(pod);
        self.stage.broker.renew_version(id).expect("version");
        self.outside.retain(|(source, _), ()| *source != pod);
    }

    /// After a connection that came to the agent: what it leaves in the kernel, at once or later.
    pub fn consider(&mut self, random: &mut Random, dial: Dial, came: Came) {
        let From::Pod(pod) = dial.from else { return };
        if came != Came::Captured {
            return;
        }
        if self.state.is_service(dial.to) {
            return self.leave_service(pod, dial.to);
        }
        let Some((verdict, versions)) = self.decided(pod, dial.to) else {
            return;
        };
        let pending = Pending {
            pod,
            to: dial.to,
            verdict,
            versions,
        };
        // What leads out of the mesh is decided and left under the lock that the sweep takes too.
        if verdict == KernelVerdict::Outside || random.below(3) > 0 {
            self.leave(pending);
        } else {
            self.pending.push(pending);
        }
    }

    /// Leaves what waits for it, whatever has happened since it was decided.
    pub fn leave_pending(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            self.leave(pending);
        }
    }

    fn leave(&mut self, pending: Pending) {
        let Pending {
            pod,
            to,
            verdict,
            versions,
        } = pending;
        let id = self.stage.id(pod);
        self.stage
            .broker
            .set_verdict(id, to, verdict, versions)
            .expect("verdict");
        if verdict == KernelVerdict::Outside {
            self.outside.insert((pod, to), ());
        } else {
            self.outside.remove(&(pod, to));
        }
    }

    /// As `services::leave`: at once, under the lock that the sweep takes too.
    fn leave_service(&mut self, pod: usize, to: SocketAddr) {
        let broker = &self.stage.broker;
        let id = self.stage.id(pod);
        let versions = broker.versions(id, None).expect("a version");
        let Some(choice) = self.state.service(pod, to) else {
            return;
        };
        let of = |address: &SocketAddr, verdict: &Verdict| {
            let local = pod_at(address.ip()).map(|pod| self.stage.id(pod));
            match verdict {
                Verdict::Outside => Some((KernelVerdict::Outside, versions)),
                Verdict::Direct(_) => Some((KernelVerdict::Direct(local?), broker.versions(id, local)?)),
                Verdict::Deny(_) => Some((KernelVerdict::Deny(local?), broker.versions(id, local)?)),
            }
        };
        let endpoints = choice.endpoints.iter().map(|(address, verdict)| ServiceEndpoint {
            address: *address,
            verdict: verdict.as_ref().and_then(|verdict| of(address, verdict)),
            load: 0,
        });
        let endpoints: Vec<_> = endpoints.collect();
        if choice.is_useful() {
            broker.set_service(id, to, versions, &endpoints).expect("service");
            self.services.insert((pod, to), choice);
        }
    }

    /// As `verdicts::decided`: the versions are read before the snapshot.
    fn decided(&self, pod: usize, to: SocketAddr) -> Option<(KernelVerdict, Versions)> {
        let candidate = pod_at(IpAddr::to_canonical(&to.ip())).map(|pod| self.stage.id(pod));
        let versions = self.stage.broker.versions(self.stage.id(pod), candidate)?;
        let verdict = match kernel_verdict(&self.state.mesh, self.state.workload(pod), to)? {
            Verdict::Outside => KernelVerdict::Outside,
            Verdict::Direct(_) => KernelVerdict::Direct(candidate?),
            Verdict::Deny(_) => KernelVerdict::Deny(candidate?),
        };
        Some((verdict, versions))
    }
}
