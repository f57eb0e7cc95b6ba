//! The short run: every target on its corpus and on a fixed number of mutations of it, the same in every run.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::print_stdout, reason = "shown when a test fails: which input did it")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use tramline_fuzz::mutate::{Random, mutate};
use tramline_fuzz::{TARGETS, Target, corpus, target};

/// Any would do; this one is written down so that a run can be repeated.
const SEED: u64 = 0x7472_616d_6c69_6e65;

/// Runs one input; if it breaks a promise, keeps it and says where.
fn run(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target.run(input))) {
        let name = format!("broken-{}", target.name);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, input).unwrap();
        println!(
            "the input is in {}: once the cause is found, copy it to tests/fuzz/corpus/{}/",
            path.display(),
            target.name
        );
        resume_unwind(panic);
    }
}

fn short(name: &str) {
    let target = target(name).unwrap();
    let seeds = corpus::of(name).unwrap();
    for (file, seed) in &seeds {
        println!("{file}");
        run(target, seed);
    }
    let seeds: Vec<&[u8]> = seeds.iter().map(|(_, seed)| &**seed).collect();
    let mut random = Random::new(SEED);
    for _ in 0..target.mutations {
        run(target, &mutate(&mut random, &seeds, target.words));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                short(stringify!($name));
            }
        )*

        #[test]
        fn every_target_has_a_test_and_a_corpus_and_every_corpus_a_target() {
            let tested = BTreeSet::from([$(stringify!($name).to_owned()),*]);
            let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
            assert_eq!(tested, targets);
            let directories = std::fs::read_dir(corpus::directory()).unwrap();
            let corpora: BTreeSet<_> =
                directories.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            assert_eq!(corpora, targets);
            for target in TARGETS {
                let seeds = corpus::of(target.name).unwrap();
                assert!(seeds.len() >= 4, "{}: {} seeds", target.name, seeds.len());
            }
        }
    };
}

targets! { manifests identity authority forwarded baggage traceparent policy }

/// The run as a whole can fail: a promise that one input in very many breaks is found broken.
#[test]
fn a_broken_promise_is_found() {
    fn check(input: &[u8]) {
        let text = String::from_utf8_lossy(input);
        assert!(!text.contains("/sa//"), "found");
    }
    let broken = Target {
        name: "identity",
        check,
        ..*target("identity").unwrap()
    };
    let seeds = corpus::of("identity").unwrap();
    let seeds: Vec<&[u8]> = seeds.iter().map(|(_, seed)| &**seed).collect();
    let mut random = Random::new(SEED);
    let found = (0..broken.mutations).any(|_| {
        let input = mutate(&mut random, &seeds, broken.words);
        catch_unwind(|| broken.run(&input)).is_err()
    });
    assert!(found);
}

#[test]
fn an_input_that_costs_out_of_proportion_is_found() {
    fn check(input: &[u8]) {
        let all: Vec<u8> = input.repeat(input.len());
        assert!(all.len() >= input.len());
    }
    let hungry = Target {
        name: "identity",
        check,
        memory: (1 << 20, 64),
        ..*target("identity").unwrap()
    };
    hungry.run(&[b'x'; 100]);
    assert!(catch_unwind(|| hungry.run(&[b'x'; 10_000])).is_err());
}
