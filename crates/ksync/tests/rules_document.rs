//! `docs/rules.md` names the tests of each rule of NT. This keeps it true.

mod document_support;

use document_support::{document, links, rows, wrong_links};
use std::path::Path;
use std::{fs, iter};

#[test]
fn every_named_test_exists() {
    let (path, text) = document("rules.md");
    let wrong = wrong_links(&path, &text);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_rule_has_a_row() {
    let (_, text) = document("rules.md");
    let rows: Vec<_> = rows(&text).collect();
    let numbers: Vec<_> = rows.iter().map(|row| row[0].to_owned()).collect();
    assert_eq!(numbers, (1..=65).map(|number| number.to_string()).collect::<Vec<_>>());
    for row in rows {
        assert_eq!(row.len(), 3, "{row:?}");
        let has_test = links(row[2]).next().is_some();
        assert!(has_test || row[2].starts_with("none yet: "), "{row:?}");
        // A test that is named after a rule is that rule's.
        for (name, _) in links(row[2]).filter(|(name, _)| name.starts_with("rule_")) {
            let numbers = name.split('_').skip(1).map_while(|part| if part == "and" { Some(0) } else { part.parse().ok() });
            let number: u32 = row[0].parse().unwrap();
            assert!(numbers.into_iter().any(|found: u32| found == number), "{name} in the row of {number}");
        }
    }
}

/// A rule whose row names no test has none: when the first one comes, the row is to say so.
#[test]
fn no_row_says_that_there_is_no_test_where_there_is_one() {
    fn sources(directory: &Path, found: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut text = String::new();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ksim/tests/conformance");
    iter::once(tests).for_each(|tests| sources(&tests, &mut text));
    let (_, document) = document("rules.md");
    for row in rows(&document).filter(|row| row[2].starts_with("none yet: ")) {
        let number: u32 = row[0].parse().unwrap();
        assert!(!text.contains(&format!("fn rule_{number:02}_")), "rule {number} has a test");
    }
}
