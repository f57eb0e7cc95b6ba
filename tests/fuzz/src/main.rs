//! `tramline-fuzz`: mutations of the corpus for as long as one likes; `cargo xtask fuzz` builds it in release and starts it.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tramline_fuzz::mutate::{Random, mutate};
use tramline_fuzz::{TARGETS, Target, corpus, target};

/// Between two looks at the clock and the screen.
const STRIDE: u32 = 64;

#[derive(Debug, Parser)]
#[command(name = "tramline-fuzz", version)]
struct Arguments {
    /// What to try: manifests, identity, authority, forwarded, baggage, traceparent, policy; all of them by default
    targets: Vec<String>,
    /// How long, for each target
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,
    /// The first of the numbers that mutations are made from: the same seed, the same inputs
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Where an input that breaks a promise is kept
    #[arg(long, default_value = "target/fuzz", value_name = "DIR")]
    keep: PathBuf,
    /// Try this one file and nothing else, with the target named
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "tramline-fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let chosen: Vec<&Target> = match arguments.targets.as_slice() {
        [] => TARGETS.iter().collect(),
        names => names
            .iter()
            .map(|name| {
                target(name).with_context(|| format!("no target `{name}`; there are {}", names_of_all()))
            })
            .collect::<Result<_>>()?,
    };
    if let Some(file) = &arguments.input {
        let [target] = chosen.as_slice() else {
            bail!("--input needs one target");
        };
        let input = std::fs::read(file).with_context(|| file.display().to_string())?;
        target.run(&input);
        let _ = writeln!(
            stdout(),
            "{}: {} bytes, every promise kept",
            target.name,
            input.len()
        );
        return Ok(());
    }
    for target in chosen {
        try_one(target, arguments)?;
    }
    Ok(())
}

fn try_one(target: &Target, arguments: &Arguments) -> Result<()> {
    let seeds = corpus::of(target.name).context("the corpus, which is read from the source tree")?;
    let seeds: Vec<&[u8]> = seeds.iter().map(|(_, seed)| &**seed).collect();
    let mut random = Random::new(arguments.seed);
    let (began, length) = (Instant::now(), Duration::from_secs(arguments.seconds));
    let mut inputs = 0_u64;
    let shown = stderr().is_terminal();
    while began.elapsed() < length {
        for _ in 0..STRIDE {
            let input = mutate(&mut random, &seeds, target.words);
            inputs += 1;
            if catch_unwind(AssertUnwindSafe(|| target.run(&input))).is_err() {
                let file = keep(&arguments.keep, target, &input)?;
                bail!(
                    "{}: input {inputs} of seed {} breaks a promise; it is kept. Again: cargo xtask fuzz {} --input {}",
                    target.name,
                    arguments.seed,
                    target.name,
                    file.display()
                );
            }
        }
        if shown {
            let (done, of) = (began.elapsed().as_secs(), arguments.seconds.max(1));
            let filled = usize::try_from((done * 30 / of).min(30)).unwrap_or(30);
            let bar = format!("{}{}", "#".repeat(filled), ".".repeat(30 - filled));
            let _ = write!(
                stderr(),
                "\r{:<12} [{bar}] {done}/{of} s, {inputs} inputs",
                target.name
            );
        }
    }
    if shown {
        let _ = write!(stderr(), "\r\x1b[K");
    }
    let seconds = began.elapsed().as_secs_f64();
    let _ = writeln!(
        stdout(),
        "{:<12} {inputs} inputs in {seconds:.0} s, every promise kept",
        target.name
    );
    Ok(())
}

fn names_of_all() -> String {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.join(", ")
}

fn keep(directory: &Path, target: &Target, input: &[u8]) -> Result<PathBuf> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let file = directory.join(format!("broken-{}", target.name));
    std::fs::write(&file, input).with_context(|| file.display().to_string())?;
    Ok(file)
}
