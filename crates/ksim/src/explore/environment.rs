//! What the environment says about searches.

use super::Shard;
use std::fmt;

/// Overrides [`Explore::seed`](super::Explore::seed): a number.
pub const SEED: &str = "KSIM_SEED";
/// Overrides [`Explore::schedules`](super::Explore::schedules) and lifts a limit on time: a number, at least 1.
pub const SCHEDULES: &str = "KSIM_SCHEDULES";
/// A [token](super::Failure::token): only its schedule is run.
pub const REPLAY: &str = "KSIM_REPLAY";
/// Overrides [`Explore::shard`](super::Explore::shard): `index/count`, counted from 0.
pub const SHARD: &str = "KSIM_SHARD";

/// Overrides [`Explore::early_expiries`](super::Explore::early_expiries): a number. A token belongs to the number that it was found with.
pub const EARLY_EXPIRIES: &str = "KSIM_EARLY_EXPIRIES";

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) seed: Option<u64>,
    pub(super) schedules: Option<u64>,
    pub(super) replay: Option<String>,
    pub(super) shard: Option<Shard>,
    pub(super) early_expiries: Option<u32>,
}

/// A variable that is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    variable: &'static str,
    value: String,
    expected: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment's {} is {:?}, and should be {}", self.variable, self.value, self.expected)
    }
}

impl Environment {
    pub(super) fn read() -> Result<Self, Malformed> {
        Self::from(|variable| std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned()))
    }

    fn from(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, Malformed> {
        let parse = |name, expected, accept: fn(&str) -> Option<u64>| match variable(name) {
            None => Ok(None),
            Some(value) => match accept(value.trim()) {
                Some(number) => Ok(Some(number)),
                None => Err(Malformed { variable: name, value, expected }),
            },
        };
        let shard = match variable(SHARD) {
            None => None,
            Some(value) => match shard(value.trim()) {
                Some(shard) => Some(shard),
                None => {
                    let expected = "index/count, counted from 0, such as 0/4";
                    return Err(Malformed { variable: SHARD, value, expected });
                }
            },
        };
        Ok(Self {
            seed: parse(SEED, "a number", |text| text.parse().ok())?,
            schedules: parse(SCHEDULES, "a number of at least 1", |text| text.parse().ok().filter(|&number| number > 0))?,
            replay: variable(REPLAY),
            shard,
            early_expiries: parse(EARLY_EXPIRIES, "a number", |text| text.parse::<u32>().ok().map(u64::from))?
                .map(|number| number as u32),
        })
    }
}

fn shard(text: &str) -> Option<Shard> {
    let (index, count) = text.split_once('/')?;
    let (index, count) = (index.parse().ok()?, count.parse().ok()?);
    (index < count).then_some(Shard { index, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &str) -> Result<Environment, Malformed> {
        Environment::from(|variable| (variable == name).then(|| value.to_owned()))
    }

    #[test]
    fn variables_are_read() {
        assert_eq!(Environment::from(|_| None), Ok(Environment::default()));
        assert_eq!(read(SEED, "17").unwrap().seed, Some(17));
        assert_eq!(read(SCHEDULES, " 5 ").unwrap().schedules, Some(5));
        assert_eq!(read(SHARD, "3/4").unwrap().shard, Some(Shard { index: 3, count: 4 }));
        assert_eq!(read(EARLY_EXPIRIES, "2").unwrap().early_expiries, Some(2));
        assert_eq!(read(REPLAY, "abc").unwrap().replay.as_deref(), Some("abc"));
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (name, value) in [
            (SEED, "x"),
            (SEED, ""),
            (SCHEDULES, "0"),
            (SCHEDULES, "-1"),
            (SHARD, "4/4"),
            (SHARD, "1"),
            (SHARD, "0/0"),
            (EARLY_EXPIRIES, "-1"),
        ] {
            let message = read(name, value).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(&format!("{value:?}")), "{message}");
        }
    }
}
