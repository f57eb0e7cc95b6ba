//! `docs/POLICY.md` names a test for each sentence of the standard: each name is that of a test.

use std::collections::HashMap;
use std::path::Path;

#[test]
fn every_test_that_the_policy_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/POLICY.md")).unwrap();
    let mut sources: HashMap<&str, String> = HashMap::new();
    let mut named = 0;
    // Between backticks: every second piece.
    for (file, test) in page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|word| word.split_once(".rs::"))
    {
        let source = sources.entry(file).or_insert_with(|| {
            let below = match file.starts_with("manifest/") {
                true => "node-agent/src/discover",
                false => "node-agent/core/tests/core",
            };
            let path = root.join(below).join(format!("{file}.rs"));
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
        let begins = format!("fn {test}(");
        assert!(
            source.lines().any(|line| line.trim_start().starts_with(&begins)),
            "docs/POLICY.md names {file}.rs::{test}, which is no test"
        );
        named += 1;
    }
    assert!(named >= 40, "only {named} names were found in docs/POLICY.md");
}
