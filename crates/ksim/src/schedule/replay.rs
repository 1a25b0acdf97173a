//! The choices of an earlier run, made again.

use super::{Decision, Policy};
use crate::explore::TokenError;
use crate::explore::token::Choice;
use std::cell::RefCell;
use std::rc::Rc;

/// Makes choices again, and then 0 for ever.
#[derive(Debug)]
pub(crate) struct Replay {
    choices: Vec<Choice>,
    made: usize,
    /// What cannot be chosen is 0, and no difference.
    lenient: bool,
    difference: Option<TokenError>,
}

impl Replay {
    pub(crate) fn new(choices: &[Choice]) -> Self {
        Self { choices: choices.to_vec(), made: 0, lenient: false, difference: None }
    }

    /// One that makes them as far as they can be made.
    pub(crate) fn lenient(choices: &[Choice]) -> Self {
        Self { lenient: true, ..Self::new(choices) }
    }

    /// A policy whose state its maker keeps a hand on.
    pub(crate) fn shared(replay: &Rc<RefCell<Self>>) -> impl Policy + use<> {
        Shared(Rc::clone(replay))
    }

    /// Where the program turned out to differ from the one that made the choices.
    pub(crate) fn difference(&self) -> Option<TokenError> {
        if self.difference.is_some() {
            return self.difference.clone();
        }
        let last = self.choices.iter().rposition(|choice| choice.value != 0)?;
        (last >= self.made).then(|| TokenError::Differs {
            choice: self.made as u64,
            reason: format!("the run ended, and the token goes on to choice {last}"),
        })
    }

    fn next(&mut self, decision: &Decision<'_>) -> u32 {
        let options = decision.len();
        let at = self.made;
        self.made += 1;
        let Some(&Choice { value, point, .. }) = self.choices.get(at) else { return 0 };
        if value == 0 || self.difference.is_some() {
            return 0;
        }
        if self.lenient {
            return if value < options { value } else { 0 };
        }
        let reason = if value >= options {
            format!("option {value} was chosen, and there are {options}")
        } else if point != decision.point() {
            "it is made at another kind of point, or between other operations".to_owned()
        } else {
            return value;
        };
        self.difference = Some(TokenError::Differs { choice: at as u64, reason });
        0
    }
}

impl Policy for Replay {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        self.next(decision)
    }
}

#[derive(Debug)]
struct Shared(Rc<RefCell<Replay>>);

impl Policy for Shared {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        self.0.borrow_mut().next(decision)
    }
}
