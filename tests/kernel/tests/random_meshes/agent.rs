//! What the agent does with its decisions: rows and verdicts by the code of the agent, in its order, but stopped at any
//! point in between.

use crate::{
    stage::{Came, Dial, From, Stage, pod_at},
    state::State,
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};
use tramline_core::{
    mesh::Basis,
    verdict::{KernelVerdict as Verdict, kernel_verdict},
};
use tramline_fuzz::{mutate::Random, world::PODS};
use tramline_node_agent::broker::{KernelVerdict, PodRows, Versions};

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
    pending: Vec<Pending>,
}

impl Agent {
    pub fn new(stage: Stage, state: State) -> Self {
        let mut agent = Self {
            stage,
            basis: vec![None; PODS.len()],
            rows: vec![None; PODS.len()],
            outside: HashMap::new(),
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
