//! The objects of each file, so that a change of one file does not have all others read and compared again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use tramline_core::mesh::Change;
use tramline_core::object::{Meta, Objects};

use super::difference;
use super::read::Contents;
use crate::discover::ConfigError;
use crate::discover::manifest::{self, Format};

/// What the files of a directory hold, by their names.
#[derive(Debug, Default)]
pub struct Parsed {
    files: BTreeMap<String, File>,
}

/// One file as it was understood.
#[derive(Debug, Clone)]
struct File {
    /// SHA-256: a file whose author may be anybody must not pass for another.
    digest: Vec<u8>,
    objects: Arc<Objects>,
}

impl Parsed {
    /// Reads the files that are other than before, and takes the others as they were understood then; `before` had no errors.
    pub(super) fn of(contents: &Contents, before: Option<&Self>, errors: &mut Vec<ConfigError>) -> Self {
        let mut files = BTreeMap::new();
        for (name, bytes) in contents.files() {
            let Some(format) = Format::of(name) else {
                continue;
            };
            let digest = digest(&SHA256, bytes).as_ref().to_vec();
            let known = before.and_then(|before| before.files.get(name));
            let file = match known.filter(|known| known.digest == digest) {
                Some(known) => known.clone(),
                None => {
                    let mut objects = Objects::default();
                    manifest::parse(bytes, name, format, &mut objects, errors);
                    let objects = Arc::new(objects);
                    File { digest, objects }
                }
            };
            files.insert(name.to_owned(), file);
        }
        Self { files }
    }

    /// All objects, in the order of the files.
    pub fn objects(&self) -> Objects {
        all(self.files.values().map(|file| &*file.objects))
    }

    /// What leads here from `before`, found in the files that are not the same; `None` where only a whole build does: kinds that
    /// may concern anything changed, or went to another file, or an object is given twice.
    pub(super) fn changes_since(&self, before: &Self) -> Option<Vec<Change>> {
        let nothing = Objects::default();
        let names: BTreeSet<&String> = self.files.keys().chain(before.files.keys()).collect();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        let mut same = Vec::new();
        for name in names {
            let (was, is) = (before.files.get(name), self.files.get(name));
            if let (Some(was), Some(is)) = (was, is)
                && was.digest == is.digest
            {
                same.push(&*is.objects);
                continue;
            }
            let of = |file: Option<&File>| file.map(|file| file.objects.clone());
            let (was, is) = (of(was), of(is));
            // File by file: the order of these objects is that of the files they are in.
            if !difference::alike_but_for_changes(
                was.as_deref().unwrap_or(&nothing),
                is.as_deref().unwrap_or(&nothing),
            ) {
                return None;
            }
            old.extend(was);
            new.extend(is);
        }
        let [old, new] = [old, new].map(|files| all(files.iter().map(|objects| &**objects)));
        if same.iter().any(|file| shares_a_name(file, &new)) {
            return None;
        }
        difference::changes(&old, &new)
    }
}

/// Whether an object of one is called as one of the other: given twice, it has no difference.
fn shares_a_name(one: &Objects, other: &Objects) -> bool {
    fn any<T>(one: &[T], other: &[T], meta: impl Fn(&T) -> &Meta) -> bool {
        let name = |object| {
            let object = &meta(object).object;
            (&*object.namespace, &*object.name)
        };
        if other.is_empty() {
            return false;
        }
        let names: HashSet<_> = other.iter().map(name).collect();
        one.iter().any(|object| names.contains(&name(object)))
    }
    any(&one.pods, &other.pods, |object| &object.meta)
        || any(&one.services, &other.services, |object| &object.meta)
        || any(
            &one.authorization_policies,
            &other.authorization_policies,
            |object| &object.meta,
        )
        || any(&one.peer_authentications, &other.peer_authentications, |object| {
            &object.meta
        })
}

fn all<'a>(files: impl Iterator<Item = &'a Objects>) -> Objects {
    let mut all = Objects::default();
    for file in files {
        // By name, so that a kind to come is not forgotten.
        let Objects {
            namespaces,
            nodes,
            pods,
            services,
            endpoint_slices,
            service_accounts,
            peer_authentications,
            authorization_policies,
        } = file;
        all.namespaces.extend_from_slice(namespaces);
        all.nodes.extend_from_slice(nodes);
        all.pods.extend_from_slice(pods);
        all.services.extend_from_slice(services);
        all.endpoint_slices.extend_from_slice(endpoint_slices);
        all.service_accounts.extend_from_slice(service_accounts);
        all.peer_authentications.extend_from_slice(peer_authentications);
        all.authorization_policies
            .extend_from_slice(authorization_policies);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> String {
        format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: demo}}\nspec: {{}}\n")
    }

    fn parsed(files: &[(&str, &str)], before: Option<&Parsed>) -> Parsed {
        let files = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).into()));
        let mut errors = Vec::new();
        let parsed = Parsed::of(&Contents::new(files.collect()), before, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        parsed
    }

    #[test]
    fn a_file_that_is_the_same_is_not_read_again() {
        let first = parsed(&[("a.yaml", &pod("a")), ("b.yaml", &pod("b"))], None);
        let second = parsed(&[("a.yaml", &pod("a")), ("b.yaml", &pod("c"))], Some(&first));
        let of = |parsed: &Parsed, name| parsed.files[name].objects.clone();
        assert!(Arc::ptr_eq(&of(&first, "a.yaml"), &of(&second, "a.yaml")));
        assert_eq!(second.changes_since(&first).map(|changes| changes.len()), Some(2));
        // The same bytes by another name are in another place.
        let moved = parsed(&[("b.yaml", &pod("c")), ("c.yaml", &pod("a"))], Some(&second));
        assert_eq!(
            of(&moved, "c.yaml").pods[0].meta.object.origin.as_deref(),
            Some("c.yaml:2")
        );
        assert_eq!(moved.changes_since(&second).map(|changes| changes.len()), Some(1));
    }

    #[test]
    fn what_the_changed_files_do_not_tell_is_left_to_all_of_them() {
        let first = parsed(&[("a.yaml", &pod("a")), ("b.yaml", &pod("b"))], None);
        let twice = parsed(&[("a.yaml", &pod("a")), ("b.yaml", &pod("a"))], Some(&first));
        assert!(twice.changes_since(&first).is_none(), "given twice");
        let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                     metadata: {name: s, namespace: demo, labels: {kubernetes.io/service-name: s}}\n\
                     addressType: IPv4\nendpoints: [{addresses: [10.0.0.7]}]\n";
        let sliced = parsed(&[("a.yaml", &pod("a")), ("b.yaml", slice)], Some(&first));
        assert!(sliced.changes_since(&first).is_none(), "of endpoints");
    }
}
