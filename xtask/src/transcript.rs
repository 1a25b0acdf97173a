//! What a driver printed, step by step, and the comparison of two runs of it.
//!
//! A driver that is compared prints
//!
//! ```text
//! [step] event
//! handed over 3 times
//! # took 21 ms on processor 2
//! [step] guarded mutex
//! [skip] guarded mutex: KeAcquireGuardedMutex is missing
//! ```
//!
//! - `[step] <name>` starts a step. The lines up to the next step are its own.
//! - `[skip] <name>: <why>` says that this system cannot run the step, with or without a `[step]` before it.
//! - Lines that start with `# ` hold what may differ between two runs: times, addresses, processor numbers. They are not
//!   compared.
//! - An empty line ends the step. What follows, up to the next step, belongs to no step and is not compared; nor is
//!   what comes before the first one.
//!
//! A line is printed by one call, and is short enough for one `DbgPrint`: Wine shows each print as a line of its own, so that
//! pieces of a line cannot be put together again.

use std::fmt;

use anyhow::{Result, bail};

/// What one run printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transcript {
    steps: Vec<Step>,
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    name: String,
    /// The lines that are compared.
    lines: Vec<String>,
    /// Why the system could not run it.
    skipped: Option<String>,
}

impl Transcript {
    /// Reads what a driver printed.
    pub(crate) fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut steps: Vec<Step> = Vec::new();
        let mut inside = false;
        for line in lines.into_iter().map(str::trim_end) {
            if let Some(name) = line.strip_prefix("[step] ") {
                let name = name.trim();
                if steps.iter().any(|step| step.name == name) {
                    bail!("the step `{name}` is there twice");
                }
                steps.push(Step { name: name.to_owned(), lines: Vec::new(), skipped: None });
                inside = true;
            } else if let Some(skip) = line.strip_prefix("[skip] ") {
                let Some((name, why)) = skip.split_once(": ") else {
                    bail!("`{line}` does not read `[skip] <step>: <why>`");
                };
                let why = Some(why.to_owned());
                match steps.iter_mut().find(|step| step.name == name) {
                    Some(step) => step.skipped = why,
                    None => steps.push(Step { name: name.to_owned(), lines: Vec::new(), skipped: why }),
                }
                inside = false;
            } else if line.is_empty() {
                inside = false;
            } else if inside && line != "#" && !line.starts_with("# ") {
                let step = steps.last_mut().expect("a line inside a step follows its start");
                step.lines.push(line.to_owned());
            }
        }
        Ok(Self { steps })
    }

    /// How many steps there are.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Compares another system's run with this one, which says what is right.
    pub(crate) fn compare(&self, other: &Self) -> Comparison {
        let find = |name: &str| other.steps.iter().find(|step| step.name == name);
        let mut verdicts: Vec<_> =
            self.steps.iter().map(|step| (step.name.clone(), Verdict::of(step, find(&step.name)))).collect();
        for step in &other.steps {
            if !self.steps.iter().any(|known| known.name == step.name) {
                verdicts.push((step.name.clone(), Verdict::Unexpected));
            }
        }
        Comparison { verdicts }
    }
}

/// How one step came out on the other system.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The same lines, this many.
    Equal(usize),
    /// The step ran but holds no line to compare.
    Nothing,
    /// The other system cannot run the step.
    Skipped(String),
    /// The step is not in the other run.
    Missing,
    /// The step is in the other run only.
    Unexpected,
    /// Line `line` (from 1) differs. `None` is the end of the step.
    Differs { line: usize, right: Option<String>, wrong: Option<String> },
}

impl Verdict {
    fn of(right: &Step, other: Option<&Step>) -> Self {
        let Some(other) = other else { return Self::Missing };
        if let Some(why) = &other.skipped {
            return Self::Skipped(why.clone());
        }
        for index in 0..right.lines.len().max(other.lines.len()) {
            let (right, wrong) = (right.lines.get(index), other.lines.get(index));
            if right != wrong {
                return Self::Differs { line: index + 1, right: right.cloned(), wrong: wrong.cloned() };
            }
        }
        if right.lines.is_empty() { Self::Nothing } else { Self::Equal(right.lines.len()) }
    }

    fn is_failure(&self) -> bool {
        matches!(self, Self::Missing | Self::Unexpected | Self::Differs { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |line: &Option<String>| line.as_ref().map_or("(the end)".to_owned(), |line| format!("`{line}`"));
        match self {
            Self::Equal(1) => write!(f, "equal     1 line"),
            Self::Equal(lines) => write!(f, "equal     {lines} lines"),
            Self::Nothing => write!(f, "empty     no line to compare"),
            Self::Skipped(why) => write!(f, "skipped   {why}"),
            Self::Missing => write!(f, "MISSING   it did not run and did not say why"),
            Self::Unexpected => write!(f, "UNKNOWN   the hosted run has no such step"),
            Self::Differs { line, right, wrong } => {
                write!(f, "DIFFERS   line {line} is {}, hosted {}", shown(wrong), shown(right))
            }
        }
    }
}

/// The outcome of a comparison, step by step.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    verdicts: Vec<(String, Verdict)>,
}

impl Comparison {
    /// How many steps printed the same lines, at least one each.
    pub(crate) fn equal(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Equal(_)))
    }

    /// How many steps the other system cannot run.
    pub(crate) fn skipped(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Skipped(_)))
    }

    /// How many steps came out wrong.
    pub(crate) fn failures(&self) -> usize {
        self.count(Verdict::is_failure)
    }

    fn count(&self, which: impl Fn(&Verdict) -> bool) -> usize {
        self.verdicts.iter().filter(|(_, verdict)| which(verdict)).count()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.verdicts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, verdict) in &self.verdicts {
            writeln!(f, "  {name:<width$}  {verdict}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(right: &str, other: &str) -> Comparison {
        let parse = |text: &str| {
            Transcript::parse(text.lines().map(str::to_owned).collect::<Vec<_>>().iter().map(|l| l.as_str())).unwrap()
        };
        parse(right).compare(&parse(other))
    }

    #[test]
    fn equal_steps_are_counted() {
        let text = "banner\n[step] a\none\n# 3 ms\n[step] b\ntwo\n\nsummary";
        let other = "[step] a\none\n# 9 ms\n#\n[step] b\ntwo";
        let outcome = compare(text, other);
        assert_eq!((outcome.equal(), outcome.skipped(), outcome.failures()), (2, 0, 0));
    }

    #[test]
    fn a_line_that_differs_is_shown() {
        let outcome = compare("[step] a\none\ntwo", "[step] a\none\nthree");
        assert_eq!(outcome.failures(), 1);
        assert!(outcome.to_string().contains("line 2 is `three`, hosted `two`"), "{outcome}");
        let outcome = compare("[step] a\none\ntwo", "[step] a\none");
        assert!(outcome.to_string().contains("line 2 is (the end), hosted `two`"), "{outcome}");
    }

    #[test]
    fn a_skip_carries_its_reason() {
        for other in ["[skip] a: no such routine", "[step] a\nhalf\n[skip] a: no such routine\nrest"] {
            let outcome = compare("[step] a\none", other);
            assert_eq!((outcome.equal(), outcome.skipped(), outcome.failures()), (0, 1, 0));
            assert!(outcome.to_string().contains("no such routine"), "{outcome}");
        }
    }

    #[test]
    fn lost_and_new_steps_are_failures() {
        assert_eq!(compare("[step] a\none", "").failures(), 1);
        assert_eq!(compare("", "[step] a\none").failures(), 1);
    }

    #[test]
    fn a_step_without_lines_proves_nothing() {
        let outcome = compare("[step] a\n# 1", "[step] a\n# 2");
        assert_eq!((outcome.equal(), outcome.failures()), (0, 0));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Transcript::parse(["[step] a", "[step] a"]).is_err());
        assert!(Transcript::parse(["[skip] a"]).is_err());
    }
}
