//! The program, run as users run it: what it prints, what it writes, and how it ends.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod samples;

use expect_test::expect_file;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The folder with the drivers.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("command-line");
        samples::write(&folder).expect("the drivers can be written");
        folder
    })
}

/// How a run of the program went.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn ksim(arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-ksim"));
    for variable in ["KSIM_SEED", "KSIM_SCHEDULES", "KSIM_REPLAY", "KSIM_SHARD", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    let output = command.args(arguments).current_dir(folder()).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    Ran { code: output.status.code().expect("it ends by itself"), out: text(output.stdout), err: text(output.stderr) }
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
}

#[test]
fn help_is_as_it_was() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help-run", &["run", "--help"]),
        ("help-explore", &["explore", "--help"]),
        ("help-replay", &["replay", "--help"]),
        ("help-imports", &["imports", "--help"]),
        ("help-rules", &["rules", "--help"]),
    ] {
        let ran = ksim(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{name}");
        expect_file![format!("{}/tests/snapshots/{name}.txt", env!("CARGO_MANIFEST_DIR"))].assert_eq(&ran.out);
    }
}

#[test]
fn cargo_starts_it_with_its_name() {
    let (plain, by_cargo) = (ksim(&["--help"]), ksim(&["ksim", "--help"]));
    assert_eq!((by_cargo.code, by_cargo.out), (0, plain.out));
    assert_eq!(ksim(&["ksim", "run", "hello.sys"]).code, 0);
}

#[test]
fn a_clean_run() {
    let ran = ksim(&["run", "hello.sys"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with("hello\nbye\ncompleted"), "{}", ran.out);
    assert!(!ran.out.contains('\x1b'), "no colours where it is no terminal: {}", ran.out);
    // The same seed gives the same run, and the same words.
    assert_eq!(ksim(&["run", "hello.sys"]).out, ran.out);
}

#[test]
fn a_run_that_finds_something() {
    let ran = ksim(&["run", "level.sys", "--processors", "1", "--report", "level.html", "--trace", "level.json"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("KeEnterCriticalRegion is for IRQL <= APC_LEVEL"), "{}", ran.out);
    let html = std::fs::read_to_string(folder().join("level.html")).expect("the timeline is written");
    assert!(html.contains("STOP 0xc4 DRIVER_VERIFIER_DETECTED_VIOLATION"));
    let trace = std::fs::read_to_string(folder().join("level.json")).expect("the trace is written");
    let trace: Value = serde_json::from_str(&trace).expect("it is JSON");
    assert!(trace["traceEvents"].as_array().expect("events").len() > 5);
    // The rule can be allowed to be broken, and then the next thing is found.
    let rule = json(&ksim(&["run", "level.sys", "--json"]))["bug_check"]["rule"]["name"].as_str().expect("a rule").to_owned();
    let ran = ksim(&["run", "level.sys", "--allow", &rule]);
    assert!(ran.code == 1 && !ran.out.contains("KeEnterCriticalRegion is for"), "{}", ran.out);
}

/// Any rule can be allowed to be broken: where the kernel cannot go on, the run ends there, and finds nothing.
#[test]
fn what_is_allowed_ends_a_run_early() {
    let deadlock = ["pulse.sys", "--processors", "2", "--seed", "1"];
    assert_eq!(ksim(&[&["run"], &deadlock[..]].concat()).code, 1);
    let allowed = [&["run"], &deadlock[..], &["--allow", "Deadlock"]].concat();
    let ran = ksim(&allowed);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    expect_file![format!("{}/tests/snapshots/run-allowed.txt", env!("CARGO_MANIFEST_DIR"))].assert_eq(&ran.out);
    let ran = ksim(&[&allowed[..], &["--json", "--report", "allowed.html"]].concat());
    let told = json(&ran);
    assert_eq!((ran.code, &told["end"], &told["deadlock"]), (0, &"allowed".into(), &Value::Null));
    assert_eq!((&told["allowed"]["rule"]["name"], &told["allowed"]["end"]), (&"Deadlock".into(), &"deadlock".into()));
    let html = std::fs::read_to_string(folder().join("allowed.html")).expect("the timeline is written");
    assert!(html.contains("\"headline\":\"Deadlock (rule Deadlock is off)\",\"kind\":\"allowed\""));
    // In an image too, an exception that nothing handles.
    let ran = ksim(&["run", "level.sys", "--allow", "CriticalRegionEnter", "--allow", "Exception", "--json"]);
    let told = &json(&ran)["allowed"];
    assert_eq!((ran.code, &told["rule"]["name"], &told["bug_check"]["code"]), (0, &"Exception".into(), &0x7e.into()));
}

#[test]
fn a_search_counts_what_is_allowed() {
    let arguments = ["explore", "pulse.sys", "--processors", "2", "--schedules", "200", "--quiet", "--allow", "Deadlock"];
    let ran = ksim(&arguments);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    let (first, rest) = ran.out.split_once('\n').expect("two lines");
    assert!(first.contains("none failed") && rest.starts_with("incomplete: "), "{}", ran.out);
    assert!(
        rest.ends_with(" ended early, at a breach of rule Deadlock, which is off: what comes behind it was not run\n"),
        "{}",
        ran.out
    );
    let told = |jobs: &str| json(&ksim(&[&arguments[..], &["--json", "--jobs", jobs]].concat()));
    let (one, three) = (told("1"), told("3"));
    let early = one["allowed"]["Deadlock"].as_u64().expect("a number");
    assert!(0 < early && early < 200 && one["failures"] == 0, "{one}");
    assert_eq!((&one["allowed"], &one["distinct"]), (&three["allowed"], &three["distinct"]));
    // Not all that there is has been run.
    let exhaustive = ["explore", "pulse.sys", "--processors", "2", "--strategy", "exhaustive", "--allow", "Deadlock", "--json"];
    let all = json(&ksim(&exhaustive));
    assert_eq!((&all["exhausted"], &all["allowed"]["Deadlock"]), (&false.into(), &1.into()), "{all}");
    assert_eq!(json(&ksim(&["explore", "hello.sys", "--schedules", "5", "--json"]))["allowed"], serde_json::json!({}));
    // A token of what is allowed now.
    let found = json(&ksim(&["explore", "pulse.sys", "--processors", "2", "--schedules", "200", "--json"]));
    let token = found["failure"]["token"].as_str().expect("a token");
    let ran = ksim(&["replay", token, "pulse.sys", "--processors", "2", "--allow", "Deadlock"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert_eq!(ran.out, "The schedule was run, and ends early, at a breach of rule Deadlock, which is off.\n");
}

#[test]
fn json_is_one_value() {
    let ran = ksim(&["run", "hello.sys", "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(json(&ran)["requests"].as_array().is_some_and(Vec::is_empty));
    let ran = ksim(&["run", "level.sys", "--json"]);
    assert_eq!((ran.code, &json(&ran)["bug_check"]["code"]), (1, &0xc4.into()));
}

#[test]
fn requests_to_a_device() {
    let ran = ksim(&["run", "turn.sys", "--device", r"\Device\Turn", "--ioctl", "0x222000:00ff0a", "--ioctl", "0x222000"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("request 0x222000: STATUS_SUCCESS, information 3, output ff00f5\n"), "{}", ran.out);
    assert!(ran.out.contains("request 0x222000: STATUS_SUCCESS, information 0\n"), "{}", ran.out);
    let ran = ksim(&["run", "turn.sys", "--device", r"\Device\Turn", "--ioctl", "0x222000:01", "--json"]);
    let request = &json(&ran)["requests"][0];
    assert_eq!((&request["output"], &request["status_name"]), (&"fe".into(), &"STATUS_SUCCESS".into()));
    let ran = ksim(&["run", "turn.sys", "--device", r"\Device\Nothing"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains(r"\Device\Nothing cannot be opened: STATUS_OBJECT_NAME_NOT_FOUND"), "{}", ran.err);
}

#[test]
fn faults_are_injected() {
    // Of the first allocations of a run, one is the device's.
    let refused = (1..10).any(|number| {
        let ran = ksim(&["run", "turn.sys", "--fault", &format!("allocation-{number}")]);
        ran.code == 3 && ran.err.contains("DriverEntry failed with STATUS_INSUFFICIENT_RESOURCES")
    });
    assert!(refused);
    let ran = ksim(&["explore", "turn.sys", "--faults", "allocation,timeout", "--schedules", "5", "--quiet"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    // This one waits for a thread whether or not there is one.
    let ran = ksim(&["explore", "pulse.sys", "--processors", "1", "--schedules", "1", "--faults", "allocation", "--json"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let command = json(&ran)["failure"]["replay"].as_str().expect("a command").to_owned();
    let words = shell_words::split(&command).expect("it can be read");
    let again = ksim(&words[1..].iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(again.code, 1, "{command}: {}{}", again.out, again.err);
}

#[test]
fn a_device_that_stays() {
    let stays = ksim(&["run", "turn.sys", "--no-unload"]);
    assert_eq!(stays.code, 0, "{}{}", stays.out, stays.err);
    // What is said last holds, and to unload is what happens anyway.
    let goes = ksim(&["run", "turn.sys"]);
    for words in [&["--unload"][..], &["--no-unload", "--unload"]] {
        let ran = ksim(&[&["run", "turn.sys"], words].concat());
        assert_eq!((ran.code, ran.out), (goes.code, goes.out.clone()));
    }
    assert_ne!(goes.out, stays.out, "an unload takes steps");
}

#[test]
fn a_failure_is_searched_and_repeated() {
    let arguments = ["explore", "pulse.sys", "--processors", "2", "--schedules", "200", "--quiet"];
    let ran = ksim(&arguments);
    assert_eq!((ran.code, ran.err.as_str()), (1, ""), "{}", ran.out);
    let (_, command) = ran.out.split_once("To repeat it:\n  cargo ").expect("it says how to repeat it");
    let words: Vec<_> = command.trim().split(' ').collect();
    let again = ksim(&words);
    assert_eq!(again.code, 1, "{}", again.err);
    assert!(again.out.contains("deadlock"), "{}", again.out);
    // The same search finds the same failure, on however many threads.
    let json_of = |jobs: &str| json(&ksim(&[&arguments[..], &["--json", "--jobs", jobs]].concat()));
    let (one, three) = (json_of("1"), json_of("3"));
    assert_eq!(one["failure"]["token"], three["failure"]["token"]);
    assert!(words.contains(&one["failure"]["token"].as_str().expect("a token")));
    // The repetition can be shown.
    let ran = ksim(&[&words[..], &["--report", "pulse.html"]].concat());
    assert_eq!(ran.code, 1);
    let html = std::fs::read_to_string(folder().join("pulse.html")).expect("the timeline is written");
    assert!(html.contains("\"headline\":\"Deadlock\""));
    // And so can what the search itself found.
    let ran = ksim(&[&arguments[..], &["--report", "search.html"]].concat());
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(std::fs::read_to_string(folder().join("search.html")).expect("it is written").contains("pulse+0x"));
}

#[test]
fn a_search_that_finds_nothing() {
    let ran = ksim(&["explore", "hello.sys", "--schedules", "20", "--quiet", "--jobs", "1"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert!(ran.out.contains("none failed"), "{}", ran.out);
    let ran = ksim(&["explore", "hello.sys", "--strategy", "exhaustive", "--json"]);
    assert_eq!((ran.code, &json(&ran)["exhausted"]), (0, &true.into()), "{}", ran.err);
}

#[test]
fn imports_that_it_has_and_lacks() {
    let ran = ksim(&["imports", "hello.sys"]);
    assert_eq!(ran.code, 0);
    assert_eq!(ran.out, "has    ntoskrnl.exe!DbgPrint\n1 imports, of which this kernel lacks 0\n");
    let ran = ksim(&["imports", "refuse.sys", "--missing"]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.out, "lacks  ntoskrnl.exe!KeDoNothingAtAll\n2 imports, of which this kernel lacks 1\n");
    let list = json(&ksim(&["imports", "refuse.sys", "--json"]));
    assert_eq!((&list["missing"], &list["imports"][1]["available"]), (&1.into(), &true.into()));
}

#[test]
fn what_cannot_be_loaded() {
    for (arguments, says) in [
        (&["run", "nothing.sys"][..], "cannot load nothing.sys"),
        (&["run", "level.txt"], "cannot load level.txt"),
        (&["imports", "level.txt"], "cannot load level.txt"),
        (&["run", "refuse.sys"], "DriverEntry failed with STATUS_NOT_SUPPORTED"),
        (&["explore", "refuse.sys"], "DriverEntry failed with STATUS_NOT_SUPPORTED"),
    ] {
        std::fs::write(folder().join("level.txt"), "no driver").expect("it can be written");
        let ran = ksim(arguments);
        assert_eq!(ran.code, 3, "{arguments:?}: {}", ran.err);
        assert!(ran.err.starts_with("error: ") && ran.err.contains(says), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn mistakes_in_the_command_line() {
    for arguments in [
        &[][..],
        &["run"],
        &["fly", "hello.sys"],
        &["run", "hello.sys", "--processors", "0"],
        &["run", "hello.sys", "--processors", "65"],
        &["run", "hello.sys", "--ioctl", "0x222000"],
        &["run", "hello.sys", "--device", "x", "--ioctl", "0x222000:0"],
        &["run", "hello.sys", "--allow", "NoSuchRule"],
        &["run", "hello.sys", "--report", "no/such/folder.html"],
        &["run", "hello.sys", "--fault", "allocation-0"],
        &["explore", "hello.sys", "--faults", "luck"],
        &["explore", "hello.sys", "--time", "soon"],
        &["explore", "hello.sys", "--shard", "4/4"],
        &["replay", "no-token", "hello.sys"],
    ] {
        let ran = ksim(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(!ran.err.is_empty(), "{arguments:?}");
    }
    // A token is for the settings that it was found with.
    let token = json(&ksim(&["explore", "pulse.sys", "--schedules", "200", "--json"]))["failure"]["token"].clone();
    let ran = ksim(&["replay", token.as_str().expect("a token"), "pulse.sys", "--processors", "5"]);
    assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
}

#[test]
fn rules_are_listed() {
    let ran = ksim(&["rules", "keSetEvent"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("IrqlKeSetEvent (0xc4/0x20016)") && ran.out.contains("https://learn.microsoft.com/"), "{}", ran.out);
    let ran = ksim(&["rules", "Deadlock"]);
    assert!(ran.out.starts_with("SelfDeadlock (0xc4/0x1000, ends the run when off)\n"), "{}", ran.out);
    assert!(ran.out.contains("\nDeadlock (ends the run when off)\n"), "{}", ran.out);
    let table = json(&ksim(&["rules", "--json"]));
    let when_off = |name: &str| table.as_array()?.iter().find(|rule| rule["name"] == name)?["when_off"].as_str();
    assert_eq!((when_off("SpinLock"), when_off("PoolLeft")), (Some("ends_run"), Some("goes_on")));
    assert_eq!(table.as_array().expect("a list").len(), ksim::rules().len());
}

#[test]
fn completions_for_shells() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = ksim(&["completions", shell]);
        assert_eq!(ran.code, 0, "{shell}");
        assert!(ran.out.contains("explore") && ran.out.contains("cargo-ksim"), "{shell}: {}", ran.out);
    }
}
