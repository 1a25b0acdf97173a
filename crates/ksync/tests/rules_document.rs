//! `docs/rules.md` names the tests of each rule of NT. This keeps it true.

use test_support::documents::{document, links, rows, wrong_links};

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
