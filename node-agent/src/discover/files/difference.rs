//! From the objects of one reading to those of the next, as changes.

use std::collections::HashMap;
use std::sync::Arc;

use tramline_core::authz::PolicyName;
use tramline_core::mesh::Change;
use tramline_core::object::{Meta, Objects};

type Name<'a> = (&'a Arc<str>, &'a Arc<str>);

/// What leads from one set of objects to another; `None` where only a whole build does: Namespaces, Nodes and
/// EndpointSlices may concern anything, and a name given twice has no difference.
pub(super) fn changes(before: &Objects, after: &Objects) -> Option<Vec<Change>> {
    if !alike_but_for_changes(before, after) {
        return None;
    }
    let mut changes = Vec::new();
    differ(
        &before.pods,
        &after.pods,
        |o| &o.meta,
        |(namespace, name), pod| {
            changes.push(match pod {
                Some(pod) => Change::SetPod(Box::new(pod.clone())),
                None => Change::RemovePod(namespace.clone(), name.clone()),
            });
        },
    )?;
    differ(
        &before.services,
        &after.services,
        |o| &o.meta,
        |(namespace, name), service| {
            changes.push(match service {
                Some(service) => Change::SetService(Box::new(service.clone())),
                None => Change::RemoveService(namespace.clone(), name.clone()),
            });
        },
    )?;
    let name_of = |(namespace, name): Name<'_>| PolicyName {
        namespace: namespace.clone(),
        name: name.clone(),
    };
    let (before_all, after_all) = (&before.authorization_policies, &after.authorization_policies);
    differ(
        before_all,
        after_all,
        |o| &o.meta,
        |name, policy| {
            changes.push(match policy {
                Some(policy) => Change::SetAuthorizationPolicy(Box::new(policy.clone())),
                None => Change::RemoveAuthorizationPolicy(name_of(name)),
            });
        },
    )?;
    let (before_all, after_all) = (&before.peer_authentications, &after.peer_authentications);
    differ(
        before_all,
        after_all,
        |o| &o.meta,
        |name, policy| {
            changes.push(match policy {
                Some(policy) => Change::SetPeerAuthentication(Box::new(policy.clone())),
                None => Change::RemovePeerAuthentication(name_of(name)),
            });
        },
    )?;
    Some(changes)
}

/// Whether only such kinds differ as [`changes`] can tell one by one.
pub(super) fn alike_but_for_changes(before: &Objects, after: &Objects) -> bool {
    alike(
        &before.namespaces,
        &after.namespaces,
        |o| &o.meta,
        |a, b| a.meta.labels == b.meta.labels,
    ) && alike(
        &before.nodes,
        &after.nodes,
        |o| &o.meta,
        |a, b| a.meta.labels == b.meta.labels,
    ) && alike(
        &before.service_accounts,
        &after.service_accounts,
        |o| &o.meta,
        |_, _| true,
    ) && alike(
        &before.endpoint_slices,
        &after.endpoint_slices,
        |o| &o.meta,
        |a, b| (&a.service, &a.ports, &a.endpoints) == (&b.service, &b.ports, &b.endpoints),
    )
}

fn name_of(meta: &Meta) -> Name<'_> {
    (&meta.object.namespace, &meta.object.name)
}

/// Objects by name; `None` if two have the same.
fn by_name<T>(objects: &[T], meta: impl Fn(&T) -> &Meta) -> Option<HashMap<Name<'_>, &T>> {
    let named: HashMap<_, _> = objects
        .iter()
        .map(|object| (name_of(meta(object)), object))
        .collect();
    (named.len() == objects.len()).then_some(named)
}

/// Whether the same objects are there in what counts of them, wherever they are written now. In the same order: the
/// order of EndpointSlices is that of endpoints.
fn alike<T>(before: &[T], after: &[T], meta: impl Fn(&T) -> &Meta, same: impl Fn(&T, &T) -> bool) -> bool {
    before.len() == after.len()
        && before
            .iter()
            .zip(after)
            .all(|(a, b)| name_of(meta(a)) == name_of(meta(b)) && same(a, b))
}

/// Calls `changed` for each object that is new, other than before, or gone.
fn differ<'a, T: PartialEq>(
    before: &'a [T],
    after: &'a [T],
    meta: impl Fn(&T) -> &Meta + Copy,
    mut changed: impl FnMut(Name<'a>, Option<&'a T>),
) -> Option<()> {
    let (old, new) = (by_name(before, meta)?, by_name(after, meta)?);
    for object in before {
        let name = name_of(meta(object));
        if !new.contains_key(&name) {
            changed(name, None);
        }
    }
    for object in after {
        let name = name_of(meta(object));
        if old.get(&name).is_none_or(|old| *old != object) {
            changed(name, Some(object));
        }
    }
    Some(())
}
