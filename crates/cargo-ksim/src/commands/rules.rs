//! `cargo ksim rules`.

use crate::arguments::RulesArguments;
use crate::output::{Exit, Failure, print};
use ksim::Rule;
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
        let state = match (rule.on_by_default, rule.can_be_off) {
            (true, true) => "",
            (true, false) => ", always",
            (false, _) => ", off by default",
        };
        print(&format_args!("{} ({:#x}{parameter}{state})\n    {}\n    {}", rule.name, rule.code, rule.says, rule.page()));
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
        "can_be_off": rule.can_be_off,
    })
}
