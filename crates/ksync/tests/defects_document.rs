//! `docs/defects.md` names a test for each defect. This keeps it true.

use test_support::documents::{document, links, rows, wrong_links};

/// The crates of the document, and how many defects each has.
const CRATES: [(&str, usize); 3] = [("ksync 0.1.4", 59), ("wdk-mutex 1.3.2", 17), ("win-lookaside 0.1.0", 10)];

#[test]
fn every_named_test_exists() {
    let (path, text) = document("defects.md");
    let wrong = wrong_links(&path, &text);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_defect_has_a_row_that_says_how() {
    let (_, text) = document("defects.md");
    for (name, count) in CRATES {
        let (_, section) = text.split_once(&format!("## {name}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<Vec<&str>> = rows(section).collect();
        let numbers: Vec<String> = rows.iter().map(|row| row[0].to_owned()).collect();
        assert_eq!(numbers, (1..=count).map(|number| number.to_string()).collect::<Vec<_>>(), "{name}");
        for row in rows {
            assert_eq!(row.len(), 3, "{row:?}");
            assert!(links(row[2]).next().is_some() || row[2].starts_with("not offered yet ("), "{name} {row:?}");
        }
    }
}
