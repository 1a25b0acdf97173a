//! Replay tokens: the choices of one run, as short text.
//!
//! A token is `base64url(version, settings, program, length, entries, checksum)`. What NT leaves open is one choice each time, and choice 0 is the uneventful one, so only the
//! others are entries: how many choices of 0 come before, the choice, and a byte that tells at what kind of point it was made. Numbers are LEB128. So an edit of the
//! program that adds no choice before the failure leaves its token valid, and one that does is noticed at the first choice that no longer fits.

use crate::config::Config;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use std::fmt;

/// The first byte of a token. It changes with what choices mean.
const VERSION: u8 = 2;

/// Why a token cannot be replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TokenError {
    /// It is not a token, or not a whole one.
    Damaged,
    /// A token of another version of the simulator.
    Version(u8),
    /// It was made with other settings of the machine: processors, clock, profile or others that choices depend on.
    Settings,
    /// It was made for another program, and this one does not fail by it, or does not make its choices.
    Program {
        /// What this program does with it.
        reason: String,
    },
    /// The program does not make the choices that the token was made for.
    Differs {
        /// The number of the choice, from 0.
        choice: u64,
        /// What is different.
        reason: String,
    },
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => write!(f, "the token is damaged: it must be copied whole, with nothing added"),
            Self::Version(version) => {
                write!(f, "the token is of version {version}, and this simulator reads version {VERSION}")
            }
            Self::Settings => write!(
                f,
                "the token was made for a machine with other settings: one of processors, groups, system_time, clock, profile, pool_limit, fail_allocation, \
                 fault, threaded_dpcs, flushes_threaded_dpcs, special_pool and early_expiries (or {}) differs",
                super::EARLY_EXPIRIES
            ),
            Self::Program { reason } => write!(f, "the token was made for another program: {reason}"),
            Self::Differs { choice, reason } => {
                write!(f, "the program differs from what it was when the token was made, at choice {choice}: {reason}")
            }
        }
    }
}

impl std::error::Error for TokenError {}

/// One choice that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    pub(crate) value: u32,
    /// Tells at what kind of point it was made.
    pub(crate) point: u8,
    /// It took the turn from a context that could go on. Tokens do not say it.
    pub(crate) preempts: bool,
    /// The context that acts, by its index. Tokens do not say it.
    pub(crate) actor: Option<u32>,
}

impl Choice {
    /// The uneventful one.
    pub(crate) const UNEVENTFUL: Self = Self { value: 0, point: 0, preempts: false, actor: None };
}

/// What a token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Decoded {
    /// The choices up to the last that is not 0, and then as many 0 as were made.
    pub(super) choices: Vec<Choice>,
    pub(super) program: ProgramId,
}

/// Stands for a program. Another one may have the same.
pub(super) type ProgramId = [u8; 2];

/// What stands for the program of that name.
pub(super) fn program_id(name: &str) -> ProgramId {
    let [first, second, ..] = checksum(name.as_bytes());
    [first, second]
}

/// A number that stands for all settings that choices depend on.
fn fingerprint(config: &Config) -> [u8; 4] {
    checksum(config.choices_depend_on().as_bytes())
}

/// CRC-32 (ISO-HDLC).
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let crc = bytes
        .iter()
        .fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1))));
    (!crc).to_le_bytes()
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        number |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// The token of a run that made these choices.
pub(super) fn encode(config: &Config, program: ProgramId, choices: &[Choice]) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(fingerprint(config));
    bytes.extend(program);
    write_number(&mut bytes, choices.len() as u64);
    let mut zeros = 0;
    for choice in choices {
        if choice.value == 0 {
            zeros += 1;
            continue;
        }
        write_number(&mut bytes, zeros);
        write_number(&mut bytes, u64::from(choice.value));
        bytes.push(choice.point);
        zeros = 0;
    }
    let sum = checksum(&bytes);
    bytes.extend(sum);
    BASE64.encode(bytes)
}

/// How many choices a token may claim: more than any run makes within its limit on steps, and little enough to allocate.
const MOST_CHOICES: u64 = 1 << 28;

/// The choices that a token stands for.
pub(super) fn decode(config: &Config, token: &str) -> Result<Decoded, TokenError> {
    let bytes = BASE64.decode(token.trim()).map_err(|_| TokenError::Damaged)?;
    let (content, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
    if checksum(content) != *sum {
        return Err(TokenError::Damaged);
    }
    let (&version, content) = content.split_first().ok_or(TokenError::Damaged)?;
    if version != VERSION {
        return Err(TokenError::Version(version));
    }
    let (settings, content) = content.split_first_chunk::<4>().ok_or(TokenError::Damaged)?;
    let (&program, mut content) = content.split_first_chunk::<2>().ok_or(TokenError::Damaged)?;
    if *settings != fingerprint(config) {
        return Err(TokenError::Settings);
    }
    let content = &mut content;
    let length = read_number(content).filter(|&length| length <= MOST_CHOICES).ok_or(TokenError::Damaged)?;
    let mut choices = Vec::new();
    while !content.is_empty() {
        let zeros = read_number(content).ok_or(TokenError::Damaged)?;
        let value = read_number(content).and_then(|value| u32::try_from(value).ok()).filter(|&value| value != 0);
        let value = value.ok_or(TokenError::Damaged)?;
        let (&point, rest) = content.split_first().ok_or(TokenError::Damaged)?;
        *content = rest;
        if zeros >= length - choices.len() as u64 {
            return Err(TokenError::Damaged);
        }
        choices.resize(choices.len() + zeros as usize, Choice::UNEVENTFUL);
        choices.push(Choice { value, point, preempts: false, actor: None });
    }
    choices.resize(length as usize, Choice::UNEVENTFUL);
    Ok(Decoded { choices, program })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choices() -> impl proptest::strategy::Strategy<Value = Vec<Choice>> {
        let zero = Just(Choice::UNEVENTFUL);
        let other = (1..=u32::MAX, any::<u8>()).prop_map(|(value, point)| Choice { value, point, preempts: false, actor: None });
        proptest::collection::vec(prop_oneof![4 => zero, 1 => other], 0..300)
    }

    proptest! {
        #[test]
        fn tokens_say_what_they_were_made_of(choices in choices(), program in any::<ProgramId>()) {
            let config = Config::default();
            let token = encode(&config, program, &choices);
            prop_assert_eq!(decode(&config, &token).unwrap(), Decoded { choices, program });
        }

        #[test]
        fn whatever_is_damaged_is_an_error(choices in choices(), at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_-]") {
            let config = Config::default();
            let token = encode(&config, [0; 2], &choices);
            let mut damaged: Vec<char> = token.chars().collect();
            let at = at.index(damaged.len());
            let letter = letter.chars().next().unwrap();
            prop_assume!(damaged[at] != letter);
            damaged[at] = letter;
            prop_assert!(decode(&config, &damaged.into_iter().collect::<String>()).is_err());
            prop_assert!(decode(&config, &token[..token.len() - 1]).is_err());
        }

        #[test]
        fn nonsense_is_an_error_and_no_more(text in ".{0,60}") {
            prop_assert!(decode(&Config::default(), &text).is_err());
        }
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926_u32.to_le_bytes());
    }

    #[test]
    fn another_machine_is_told_apart() {
        let token = encode(&Config::default(), [0; 2], &[]);
        let other = Config { groups: crate::engine::groups::Groups::new(&[1, 6]), ..Config::default() };
        assert_eq!(decode(&other, &token), Err(TokenError::Settings));
        let traced = Config { trace: false, seed: 9, echo: true, ..Config::default() };
        assert!(decode(&traced, &token).is_ok(), "what changes no choice does not matter");
    }
}
