use std::os::unix::fs::PermissionsExt as _;

use super::cgroup::{Mount, judge, mounts};
use super::host::{effective_capabilities, state_directory, version};
use super::*;

#[test]
fn kernel_releases_are_read() {
    assert_eq!(version("6.1.0-50-cloud-amd64"), Some((6, 1)));
    assert_eq!(version("6.18.5"), Some((6, 18)));
    assert_eq!(version("6.12.77+deb13-amd64"), Some((6, 12)));
    assert_eq!(version("unknown"), None);
}

#[test]
fn effective_capabilities_are_read() {
    assert_eq!(
        effective_capabilities("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"),
        Some(0x1ff_ffff_ffff)
    );
    assert_eq!(effective_capabilities("Name: x\n"), None);
}

#[test]
fn cgroup2_mounts_are_found_and_the_hosts_root_is_preferred() {
    let mountinfo = "\
31 23 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n\
40 31 0:35 /pod/1 /my\\040cgroup rw,nosuid - cgroup2 cgroup2 rw\n\
41 31 0:35 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
    let found = mounts(mountinfo);
    assert_eq!(
        found,
        [
            Mount {
                root: "/pod/1".into(),
                path: "/my cgroup".into()
            },
            Mount {
                root: "/".into(),
                path: "/sys/fs/cgroup/unified".into()
            },
        ]
    );
    let check = judge(&found, true);
    assert_eq!(
        (check.state, check.detail.contains("/sys/fs/cgroup/unified")),
        (CheckState::Ok, true)
    );
    assert_eq!(
        judge(&found, false).state,
        CheckState::Warning,
        "a root in a namespace may be anybody's"
    );
    assert_eq!(judge(&found[..1], true).state, CheckState::Failed);
    assert_eq!(judge(&[], true).state, CheckState::Failed);
}

#[test]
fn a_state_directory_open_to_others_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    assert_eq!(state_directory(&path).state, CheckState::Ok, "it can be made");
    assert!(!path.exists(), "and the doctor did not make it");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let check = state_directory(&path);
    assert_eq!(check.state, CheckState::Failed);
    assert_eq!(check.fix.unwrap(), format!("chmod 0700 {}", path.display()));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(state_directory(&path).state, CheckState::Ok);
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(state_directory(&file).state, CheckState::Failed);
}

#[test]
fn every_check_is_made_and_whatever_is_not_well_has_a_fix() {
    let directory = tempfile::tempdir().unwrap();
    let places = Places {
        cgroup_root: None,
        bpffs: directory.path().to_owned(),
        state_dir: directory.path().join("state"),
    };
    let checks = host_checks(&places);
    for check in &checks {
        assert_eq!(check.fix.is_some(), check.state != CheckState::Ok, "{check:?}");
        assert!(!check.detail.is_empty(), "{check:?}");
    }
    let bpffs = checks
        .iter()
        .find(|check| check.name == "BPF file system")
        .unwrap();
    assert_eq!(bpffs.state, CheckState::Failed, "a plain directory is none");
    assert!(bpffs.fix.as_ref().unwrap().starts_with("mount -t bpf"));
}
