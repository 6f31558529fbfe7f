//! The list of cases names tests that there are.

use std::{collections::BTreeSet, fs};

use anyhow::Context as _;
use gopulse_tests::{cases::CASES, workspace};

#[test]
fn each_case_names_a_test_of_its_own() -> anyhow::Result<()> {
    let mut named = BTreeSet::new();
    for case in CASES {
        let (file, function) = case.test.split_once("::").context(case.test)?;
        let path = workspace::root().join(format!("tests/tests/{file}.rs"));
        let text = fs::read_to_string(path).context(case.test)?;
        let test = format!("#[test]\nfn {function}(");
        assert!(text.contains(&test), "{}", case.test);
        assert!(named.insert(case.test), "{} is named twice", case.test);
    }
    Ok(())
}
