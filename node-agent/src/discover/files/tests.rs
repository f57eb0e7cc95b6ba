use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::time::timeout;
use tramline_core::identity::TrustDomain;

use super::*;

const QUICK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(150));
const PATIENCE: Duration = Duration::from_secs(10);

fn source(dir: &Path) -> FilesSource {
    let settings = MeshSettings::new(TrustDomain::new("cluster.local").unwrap(), "n1");
    FilesSource::new(dir, settings).with_timing(QUICK.0, QUICK.1)
}

fn pod(name: &str, namespace: &str, ip: &str, netns: bool) -> String {
    let annotation = if netns {
        format!("annotations: {{tramline.dev/netns: /run/netns/{name}}}")
    } else {
        String::new()
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {{istio.io/dataplane-mode: tramline}}\n  {annotation}\nspec: {{nodeName: n1}}\nstatus: {{podIP: {ip}}}\n"
    )
}

async fn next(updates: &mut mpsc::Receiver<Update>) -> Result<Arc<Mesh>, ConfigErrors> {
    let update = timeout(PATIENCE, updates.recv())
        .await
        .expect("no update in time")
        .expect("the source ended");
    match update {
        Update::Accepted { accepted, .. } | Update::Restored { accepted, .. } => Ok(accepted.mesh),
        Update::Refused { errors, .. } => Err(errors),
    }
}

#[test]
fn a_directory_is_read_as_a_whole() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), pod("a", "demo", "10.0.0.1", true)).unwrap();
    fs::write(dir.path().join("b.yml"), pod("b", "demo", "10.0.0.2", true)).unwrap();
    fs::write(dir.path().join(".hidden.yaml"), "{{{").unwrap();
    fs::write(dir.path().join("notes.txt"), "{{{").unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let source = source(dir.path());
    let mesh = source.load_once().unwrap();
    assert_eq!((mesh.workloads().count(), mesh.generation()), (2, 1));
    assert_eq!(source.load_once().unwrap().generation(), 2);
}

#[test]
fn every_error_is_named_at_once() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), pod("a", "one", "10.0.0.1", true)).unwrap();
    fs::write(dir.path().join("b.yaml"), pod("b", "two", "10.0.0.1", true)).unwrap();
    fs::write(dir.path().join("c.yaml"), "kind: [").unwrap();
    let errors = source(dir.path()).load_once().unwrap_err();
    let text = errors.to_string();
    assert!(
        text.contains(
            "b.yaml:9: Pod two/b (line 1): status.podIP: 10.0.0.1 is also an address of a.yaml:1: Pod one/a"
        ),
        "{text}"
    );
    assert!(text.contains("c.yaml:"), "{text}");
}

#[test]
fn an_enrolled_pod_of_this_node_has_to_say_where_its_namespace_is() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), pod("a", "demo", "10.0.0.1", false)).unwrap();
    let errors = source(dir.path()).load_once().unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("Pod demo/a (line 1): metadata.annotations.tramline.dev/netns: is required"),
        "{errors}"
    );
    fs::write(
        dir.path().join("a.yaml"),
        pod("a", "demo", "10.0.0.1", false).replace("n1", "n2"),
    )
    .unwrap();
    assert!(
        source(dir.path()).load_once().is_ok(),
        "another node's pod needs none"
    );
}

#[test]
fn what_cannot_be_read_is_an_error_not_an_empty_mesh() {
    let dir = TempDir::new().unwrap();
    let missing = source(&dir.path().join("missing")).load_once().unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
    symlink("nowhere", dir.path().join("dangling.yaml")).unwrap();
    let dangling = source(dir.path()).load_once().unwrap_err();
    assert!(dangling.to_string().contains("dangling.yaml"), "{dangling}");
}

#[tokio::test]
async fn changes_are_followed_and_errors_reported_without_losing_the_source() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, pod("a", "demo", "10.0.0.1", true)).unwrap();
    let cancel = CancellationToken::new();
    let mut updates = source(dir.path()).watch(cancel.clone());
    assert_eq!(next(&mut updates).await.unwrap().generation(), 1);

    fs::write(
        &file,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: A B}\nspec: {}\n",
    )
    .unwrap();
    let errors = next(&mut updates).await.unwrap_err();
    assert!(errors.to_string().contains("metadata.name"), "{errors}");

    fs::write(&file, pod("a", "demo", "10.0.0.7", true)).unwrap();
    let mesh = next(&mut updates).await.unwrap();
    assert!(mesh.workload_by_address("10.0.0.7".parse().unwrap()).is_some());

    fs::write(dir.path().join("none.yaml"), "").unwrap();
    fs::remove_file(&file).unwrap();
    // The empty file may have been seen beside the other one.
    while next(&mut updates).await.unwrap().workloads().count() > 0 {}
    cancel.cancel();
    assert!(timeout(PATIENCE, updates.recv()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_projected_config_map_is_followed_through_its_link() {
    let dir = TempDir::new().unwrap();
    let path = dir.path();
    for (version, ip) in [("..v1", "10.0.0.1"), ("..v2", "10.0.0.2")] {
        fs::create_dir(path.join(version)).unwrap();
        fs::write(path.join(version).join("a.yaml"), pod("a", "demo", ip, true)).unwrap();
    }
    symlink("..v1", path.join("..data")).unwrap();
    symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    let mut updates = source(path).watch(CancellationToken::new());
    assert!(
        next(&mut updates)
            .await
            .unwrap()
            .workload_by_address("10.0.0.1".parse().unwrap())
            .is_some()
    );

    symlink("..v2", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    assert!(
        next(&mut updates)
            .await
            .unwrap()
            .workload_by_address("10.0.0.2".parse().unwrap())
            .is_some()
    );
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_followed() {
    let root = TempDir::new().unwrap();
    let dir = root.path().join("conf");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("none.yaml"), "").unwrap();
    let mut updates = source(&dir).watch(CancellationToken::new());
    assert_eq!(next(&mut updates).await.unwrap().workloads().count(), 0);
    fs::remove_dir_all(&dir).unwrap();
    assert!(next(&mut updates).await.is_err());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.yaml"), pod("a", "demo", "10.0.0.1", true)).unwrap();
    // Seen gone, empty, or half written on the way.
    while !matches!(next(&mut updates).await, Ok(mesh) if mesh.workloads().count() == 1) {}
}

#[tokio::test]
async fn a_directory_without_a_manifest_is_not_a_mesh_without_anything() {
    let (dir, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = dir.path().join("a.yaml");
    let start = || {
        let kept = LastGood::new(state.path(), "i");
        source(dir.path())
            .with_last_good(kept)
            .watch(CancellationToken::new())
    };
    let said = format!(
        "{}: holds no manifest (*.yaml, *.yml, *.json); to have nothing in the mesh on purpose, put a manifest there \
         that has no object, such as an empty file none.yaml",
        dir.path().display()
    );
    async fn update(updates: &mut mpsc::Receiver<Update>) -> Update {
        timeout(PATIENCE, updates.recv()).await.unwrap().unwrap()
    }
    // What is not read does not count.
    fs::write(dir.path().join("README.txt"), "soon").unwrap();
    let mut updates = start();
    let Update::Refused { errors, nothing_kept } = update(&mut updates).await else {
        panic!("a volume that is not filled yet is taken")
    };
    assert_eq!(errors.to_string(), said);
    assert_eq!(nothing_kept.as_deref(), Some("there is none"));

    let draft = dir.path().join("draft");
    fs::write(&draft, pod("a", "demo", "10.0.0.1", true)).unwrap();
    fs::rename(&draft, &file).unwrap();
    assert_eq!(next(&mut updates).await.unwrap().workloads().count(), 1);
    fs::rename(&file, &draft).unwrap();
    let Update::Refused {
        errors,
        nothing_kept: None,
    } = update(&mut updates).await
    else {
        panic!("a volume that was emptied is taken")
    };
    assert_eq!(errors.to_string(), said);
    // Nor did it replace what a restart comes back to.
    let Update::Restored { accepted, errors, .. } = update(&mut start()).await else {
        panic!("what was good is lost")
    };
    assert_eq!(accepted.mesh.workloads().count(), 1);
    assert_eq!(errors.to_string(), said);

    fs::write(dir.path().join("none.yaml"), "# nothing, on purpose\n").unwrap();
    assert_eq!(next(&mut updates).await.unwrap().workloads().count(), 0);
}

#[test]
fn a_projected_config_map_without_a_key_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("..v1")).unwrap();
    symlink("..v1", dir.path().join("..data")).unwrap();
    let errors = source(dir.path()).load_once().unwrap_err();
    assert!(errors.to_string().contains("holds no manifest"), "{errors}");
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_not_taken() {
    use std::io::Write;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.yaml");
    let whole = format!(
        "{}---\n{}",
        pod("a", "demo", "10.0.0.1", true),
        pod("b", "demo", "10.0.0.2", true)
    );
    fs::write(dir.path().join("none.yaml"), "").unwrap();
    let slow = source(dir.path()).with_timing(Duration::from_millis(200), QUICK.1);
    let mut updates = slow.watch(CancellationToken::new());
    assert_eq!(next(&mut updates).await.unwrap().workloads().count(), 0);
    let (first, second) = whole.split_at(whole.find("---").unwrap());
    let mut writer = fs::File::create(&file).unwrap();
    writer.write_all(first.as_bytes()).unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    writer.write_all(second.as_bytes()).unwrap();
    drop(writer);
    assert_eq!(next(&mut updates).await.unwrap().workloads().count(), 2);
}

#[tokio::test]
async fn the_last_good_configuration_outlives_its_reader() {
    let (dir, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = dir.path().join("a.yaml");
    // At once: on a busy machine a file that is still empty would be taken.
    let write = |text: &str| {
        let draft = dir.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &file).unwrap();
    };
    let start = || {
        source(dir.path())
            .with_last_good(LastGood::new(state.path(), "i"))
            .watch(CancellationToken::new())
    };
    async fn update(updates: &mut mpsc::Receiver<Update>) -> Update {
        timeout(PATIENCE, updates.recv()).await.unwrap().unwrap()
    }
    // Nothing is kept yet, and nothing good is there.
    write("kind: [");
    let mut updates = start();
    let Update::Refused { nothing_kept, .. } = update(&mut updates).await else {
        panic!("taken")
    };
    assert_eq!(nothing_kept.as_deref(), Some("there is none"));

    write(&pod("a", "demo", "10.0.0.1", true));
    assert_eq!(next(&mut updates).await.unwrap().generation(), 1);
    write("kind: [");
    let Update::Refused {
        nothing_kept: None, ..
    } = update(&mut updates).await
    else {
        panic!("what is in force stays")
    };

    let mut updates = start();
    let Update::Restored {
        accepted,
        since,
        errors,
    } = update(&mut updates).await
    else {
        panic!("not restored")
    };
    let address = "10.0.0.1".parse().unwrap();
    assert!(accepted.mesh.workload_by_address(address).is_some());
    assert!(since.elapsed().unwrap() < PATIENCE && errors.errors().len() == 1);
    write(&pod("a", "demo", "10.0.0.2", true));
    assert_eq!(next(&mut updates).await.unwrap().generation(), 2);

    // A byte is missing.
    write("kind: [");
    let kept = fs::read_dir(state.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let bytes = fs::read(&kept).unwrap();
    fs::write(&kept, &bytes[..bytes.len() - 1]).unwrap();
    let Update::Refused { nothing_kept, .. } = update(&mut start()).await else {
        panic!("a damaged one is taken")
    };
    let why = nothing_kept.unwrap();
    assert!(why.contains("is damaged (its checksum is another)"), "{why}");
}
