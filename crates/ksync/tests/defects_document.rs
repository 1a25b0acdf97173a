//! `docs/defects.md` names a test for each defect. This keeps it true.

use std::fs;
use std::path::{Path, PathBuf};

/// The crates of the document, and how many defects each has.
const CRATES: [(&str, usize); 3] = [("ksync 0.1.4", 59), ("wdk-mutex 1.3.2", 17), ("win-lookaside 0.1.0", 10)];

fn document() -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/defects.md");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

/// The links of a text: what stands between the backticks, and where it leads.
fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("[`").skip(1).map(|rest| {
        let (name, rest) =
            rest.split_once("`](").unwrap_or_else(|| panic!("not a link: [`{}", rest.lines().next().unwrap_or_default()));
        (name, rest.split_once(')').expect("a link ends").0)
    })
}

/// Tells whether a name stands in a source, as a whole word, other than in a comment.
fn has_name(source: &str, name: &str) -> bool {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| line.split(|character: char| !character.is_alphanumeric() && character != '_').any(|word| word == name))
}

#[test]
fn every_named_test_exists() {
    let (path, text) = document();
    let mut wrong = Vec::new();
    for (name, target) in links(&text) {
        let file = path.parent().unwrap().join(target);
        // A program that must not compile is named by its file.
        let is_program = target.contains("/tests/ui/") && file.file_stem().is_some_and(|stem| stem == name);
        match fs::read_to_string(&file) {
            Ok(_) if is_program && file.with_extension("stderr").exists() => {}
            Ok(source) if !is_program && has_name(&source, name) => {}
            Ok(_) => wrong.push(format!("{name} is not in {target}")),
            Err(error) => wrong.push(format!("{target}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_defect_has_a_row_that_says_how() {
    let (_, text) = document();
    for (name, count) in CRATES {
        let (_, section) = text.split_once(&format!("## {name}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<Vec<&str>> = section
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| no."))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let numbers: Vec<String> = rows.iter().map(|row| row[0].to_owned()).collect();
        assert_eq!(numbers, (1..=count).map(|number| number.to_string()).collect::<Vec<_>>(), "{name}");
        for row in rows {
            assert_eq!(row.len(), 3, "{row:?}");
            assert!(links(row[2]).next().is_some() || row[2].starts_with("not offered yet ("), "{name} {row:?}");
        }
    }
}
