//! `docs/command-line.md` shows what the program prints.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod samples;

use std::path::PathBuf;
use std::process::Command;

/// The commands of a document, each with the output that it shows.
fn commands(document: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match (inside, line) {
            (false, "```console") => inside = true,
            (true, "```") => inside = false,
            (true, _) => match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), String::new())),
                (None, Some((_, output))) => output.extend([line, "\n"]),
                (None, None) => panic!("output without a command: {line}"),
            },
            (false, _) => {}
        }
    }
    commands
}

/// A line without what differs from run to run, or with any change of the kernel: what the host's clock says, seeds and tokens.
fn steady(line: &str) -> String {
    let line = line.split_once(" (seed ").map_or(line, |(line, _)| line);
    let mut words: Vec<_> = line.split(' ').collect();
    if let Some(at) = words.iter().position(|word| *word == "replay") {
        words[at + 1] = "TOKEN";
    }
    if words[0] == "incomplete:" {
        words[1] = "SOME";
    }
    if words.get(1..3) == Some(&["schedules", "in"]) {
        return "schedules".to_owned();
    }
    words.join(" ")
}

/// Whether a text is what a document shows of it, where a line `...` stands for any lines.
fn is_shown(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => (0..=printed.len()).any(|left| is_shown(rest, &printed[left..])),
        Some((first, rest)) => printed.first() == Some(first) && is_shown(rest, &printed[1..]),
    }
}

#[test]
fn the_document_shows_what_is_printed() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("docs");
    samples::write(&folder).expect("the drivers can be written");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/command-line.md");
    let document = std::fs::read_to_string(path).expect("the document is there");
    let commands = commands(&document);
    assert!(commands.len() > 5, "{commands:?}");
    for (command, shown) in commands {
        let words = shell_words::split(&command).expect("the command can be read");
        let words = words.iter().map(String::as_str).collect::<Vec<_>>();
        let ["cargo", "ksim", arguments @ ..] = &words[..] else { panic!("another program: {command}") };
        let output = Command::new(env!("CARGO_BIN_EXE_cargo-ksim"))
            .arg("ksim")
            .args(arguments)
            .current_dir(&folder)
            .output()
            .expect("the program starts");
        let printed = String::from_utf8(output.stdout).expect("it prints UTF-8");
        let said = String::from_utf8(output.stderr).expect("it prints UTF-8");
        let lines = |text: &str| text.lines().map(steady).collect::<Vec<_>>();
        assert!(
            is_shown(&lines(&shown), &lines(&(printed.clone() + &said))),
            "$ {command}\nprints\n{printed}{said}\nand not\n{shown}"
        );
    }
}
