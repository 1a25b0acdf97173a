//! The choices of an earlier run, made again.

use super::{Decision, Policy};
use crate::explore::TokenError;
use crate::explore::token::Choice;
use crate::report::sites::SiteId;
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
    /// Where the context stands that goes on at the difference.
    place: Option<SiteId>,
}

impl Replay {
    pub(crate) fn new(choices: &[Choice]) -> Self {
        Self { choices: choices.to_vec(), made: 0, lenient: false, difference: None, place: None }
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

    /// Where driver code stands that the difference was found before, in a run that records it.
    pub(crate) fn place(&self) -> Option<SiteId> {
        self.place
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
        if value < options && point == decision.point() {
            return value;
        }
        let next = decision.candidate(0).map_or_else(String::new, |next| match next.actor {
            actor if actor.as_thread().is_some() => {
                format!("t{} on processor {} was about to act; ", actor.index(), next.processor)
            }
            actor => format!("{actor} were about to act; "),
        });
        let reason = format!(
            "{next}the token takes option {value} of a choice among {}, and this is one among {}",
            describe_point(point, value),
            describe_point(decision.point(), options - 1)
        );
        self.place = decision.site();
        self.difference = Some(TokenError::Differs { choice: at as u64, reason });
        0
    }
}

/// What a token's byte says of a choice that has an option of this number.
fn describe_point(point: u8, least: u32) -> String {
    // Of the number of options it has five bits, of what would be done three.
    let mut options = u32::from(point % 32);
    while options <= least {
        options += 32;
    }
    let before = match point / 32 {
        0 => "what is not about who acts, or before a change of what others may wait for",
        1 => "before what may touch anything, or a shared acquisition",
        2 => "before a change of an object, or the release of a shared one",
        3 => "before a look at an object, or the release of a shared one",
        4 => "before an acquisition, or the setting of a timer",
        5 => "before a wait",
        6 => "before a release",
        _ => "before the setting of a timer",
    };
    let comma = if point / 32 == 0 { " about " } else { " " };
    format!("{options} options{comma}{before}")
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
