//! Embeds the eBPF object that `cargo xtask build-ebpf` left in the target directory.
//!
//! With no object there an empty file takes its place, so that everything compiles on a machine with no eBPF toolchain;
//! loading it at run time says what to do.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=TRAMLINE_EBPF_OBJECT");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let bytes = match env::var_os("TRAMLINE_EBPF_OBJECT") {
        Some(chosen) => read(Path::new(&chosen))?,
        None => built(&out)?,
    };
    fs::write(out.join("tramline-ebpf.o"), bytes)?;
    Ok(())
}

fn read(object: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", object.display());
    fs::read(object).map_err(|error| format!("cannot read {}: {error}", object.display()).into())
}

/// `TARGET_DIR/ebpf/PROFILE/tramline-ebpf.o`, where xtask puts this profile's object; empty if it is not there.
fn built(out: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    // OUT_DIR is TARGET_DIR/[TRIPLE/]PROFILE/build/PACKAGE/out.
    let mut target = out.ancestors().nth(4).ok_or("OUT_DIR is not deep enough")?;
    if target.file_name() == env::var_os("TARGET").as_deref() {
        target = target.parent().ok_or("OUT_DIR is not deep enough")?;
    }
    let directory = target.join("ebpf").join(env::var("PROFILE")?);
    // The agent of tests/next, which is made of this one's sources, has an object with other layouts of maps.
    let is_next = env::var_os("CARGO_FEATURE_NEXT_LAYOUT").is_some();
    let object = directory.join(if is_next {
        "tramline-ebpf-next.o"
    } else {
        "tramline-ebpf.o"
    });
    if object.is_file() {
        return read(&object);
    }
    // Cargo would run this again at every build for a path that does not exist; the directory changes when the object
    // comes.
    fs::create_dir_all(&directory)?;
    println!("cargo::rerun-if-changed={}", directory.display());
    Ok(Vec::new())
}
