//! `cargo ksim rules`.

use crate::arguments::RulesArguments;
use crate::output::{Exit, Failure, print};
use ksim::{Rule, WhenOff};
use serde_json::{Value, json};

pub(crate) fn run(arguments: &RulesArguments) -> Result<Exit, Failure> {
    let wanted = arguments.search.as_deref().unwrap_or_default().to_lowercase();
    let found = |rule: &&Rule| [rule.name, rule.says].iter().any(|text| text.to_lowercase().contains(&wanted));
    let rules: Vec<_> = ksim::rules().filter(found).collect();
    if arguments.json {
        print(&format_args!("{:#}", rules.iter().map(|rule| rule_json(rule)).collect::<Value>()));
        return Ok(Exit::Clean);
    }
    for rule in &rules {
        let parameter = rule.first_parameter.map(|parameter| format!("/{parameter:#x}")).unwrap_or_default();
        let code = rule.code.map(|code| format!("{code:#x}{parameter}"));
        let default = (!rule.on_by_default).then(|| "off by default".to_owned());
        let off = (rule.when_off == WhenOff::EndsRun).then(|| "ends the run when off".to_owned());
        let known: Vec<_> = [code, default, off].into_iter().flatten().collect();
        let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
        print(&format_args!("{}{known}\n    {}\n    {}", rule.name, rule.says, rule.page()));
    }
    print(&format_args!("{} rules", rules.len()));
    Ok(Exit::Clean)
}

fn rule_json(rule: &Rule) -> Value {
    json!({
        "name": rule.name,
        "code": rule.code,
        "first_parameter": rule.first_parameter,
        "says": rule.says,
        "page": rule.page(),
        "on_by_default": rule.on_by_default,
        "when_off": if rule.when_off == WhenOff::GoesOn { "goes_on" } else { "ends_run" },
    })
}
