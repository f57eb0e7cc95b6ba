//! One change, from the objects to the snapshot that decisions are made by.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use tramline_core::authz::Action;
use tramline_core::mesh::{Change, Mesh, MeshSettings};

use super::{Row, made};
use crate::statistics::median;

/// Changes of one run, of which the median counts.
const CHANGES: u32 = 20;

pub(super) fn rows(workloads: u32, rounds: u32) -> Result<Vec<Row>> {
    let objects = made::objects(workloads)?;
    let mesh = made::mesh(objects.clone())?;
    let service = objects
        .services
        .first()
        .context("a mesh without Services")?
        .clone();
    let of = |namespace: &'static str| {
        move |number: u32| {
            let policy = made::policy(namespace, "changing", 200_000 + number, Action::Deny, None)?;
            Ok(Change::SetAuthorizationPolicy(Box::new(policy)))
        }
    };
    // Pods of this node, each of another namespace, each behind a Service of a hundred endpoints.
    let pod = |number: u32| {
        let mut pod = made::pod(number * 1_000 % workloads);
        pod.ready = false;
        Ok(Change::SetPod(Box::new(pod)))
    };
    let a_service = |number: u32| {
        let mut service = service.clone();
        service.publish_not_ready = number.is_multiple_of(2);
        Ok(Change::SetService(Box::new(service)))
    };
    let kinds = [
        // Of a namespace that has workloads on this node.
        ("update_policy", runs(&mesh, rounds, of("ns-0"))?),
        (
            "update_mesh_policy",
            runs(&mesh, rounds, of(MeshSettings::DEFAULT_ROOT_NAMESPACE))?,
        ),
        ("update_pod", runs(&mesh, rounds, pod)?),
        ("update_service", runs(&mesh, rounds, a_service)?),
    ];
    // `update` is the dearest of them, whichever that is.
    let dearest = kinds
        .iter()
        .max_by(|(_, a), (_, b)| {
            median(a)
                .unwrap_or_default()
                .total_cmp(&median(b).unwrap_or_default())
        })
        .map(|(_, runs)| runs.clone())
        .unwrap_or_default();
    let rebuild = (0..rounds.min(3))
        .map(|_| {
            let objects = objects.clone();
            let start = Instant::now();
            black_box(made::mesh(objects)?);
            Ok(start.elapsed().as_secs_f64() * 1e6)
        })
        .collect::<Result<Vec<_>>>()?;
    [("update", dearest)]
        .into_iter()
        .chain(kinds)
        .chain([("update_rebuild", rebuild)])
        .map(|(case, runs)| Row::new(case, workloads, "us", "us", runs))
        .collect()
}

fn runs(mesh: &Mesh, rounds: u32, change: impl Fn(u32) -> Result<Change>) -> Result<Vec<f64>> {
    (0..rounds).map(|_| changes(mesh, &change)).collect()
}

fn changes(mesh: &Mesh, change: &impl Fn(u32) -> Result<Change>) -> Result<f64> {
    let mut mesh = mesh.clone();
    let mut each = Vec::new();
    for number in 0..CHANGES {
        let change = vec![change(number)?];
        let start = Instant::now();
        let next = mesh.apply(change).map_err(|errors| made::refused(&errors))?;
        each.push(start.elapsed().as_secs_f64() * 1e6);
        mesh = next;
    }
    median(&each).context("no change was made")
}
