//! Documents that name tests: their links and tables.

use std::fs;
use std::path::{Path, PathBuf};

/// A document of `docs`: where it is, and its text.
pub fn document(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

/// The links of a text: what stands between the backticks, and where it leads.
pub fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("[`").skip(1).map(|rest| {
        let (name, rest) =
            rest.split_once("`](").unwrap_or_else(|| panic!("not a link: [`{}", rest.lines().next().unwrap_or_default()));
        (name, rest.split_once(')').expect("a link ends").0)
    })
}

/// The cells of each row of a text's tables, without their heads.
pub fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut previous = "";
    text.lines().filter_map(move |line| {
        let head_or_rule = line.starts_with("|---") || !previous.starts_with('|');
        previous = line;
        (line.starts_with("| ") && !head_or_rule).then(|| line.trim_matches('|').split('|').map(str::trim).collect())
    })
}

/// Tells whether a name stands in a source, as a whole word, other than in a comment.
fn has_name(source: &str, name: &str) -> bool {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| line.split(|character: char| !character.is_alphanumeric() && character != '_').any(|word| word == name))
}

/// The links to tests that do not lead to one. Links to other documents are left alone.
pub fn wrong_links(path: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, target) in links(text) {
        let file = path.parent().unwrap().join(target);
        if file.extension().is_some_and(|extension| extension == "md") {
            continue;
        }
        // A program that must not compile is named by its file.
        let is_program = target.contains("/tests/ui/") && file.file_stem().is_some_and(|stem| stem == name);
        match fs::read_to_string(&file) {
            Ok(_) if is_program && file.with_extension("stderr").exists() => {}
            Ok(source) if !is_program && has_name(&source, name) => {}
            Ok(_) => wrong.push(format!("{name} is not in {target}")),
            Err(error) => wrong.push(format!("{target}: {error}")),
        }
    }
    wrong
}
