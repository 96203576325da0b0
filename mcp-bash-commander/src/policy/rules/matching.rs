//! Says whether the words of a simple command are what a rule names.
//!
//! The first element is compared with the program: the whole word, or its last path component. The others must follow in order. In front
//! of each, options may stand, and one word behind every option that may have a value: `git -C dir push` is `git push`, and
//! `git commit -m push` is not. An element that is an option itself may stand anywhere behind its predecessor, also with `=value`, and
//! one of a single letter also inside a cluster (`-r` in `-fr`).

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::options::{Value, value_of};
use super::word::Word;

/// Most elements of one rule: they are bits of a number.
pub(super) const MAX_ELEMENTS: usize = 16;

/// One element of a rule's `match`: a word, `*` for any word, or a list of words of which one must stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// `"*"`.
    Any,
    /// One of these words; a single string is a list of one.
    OneOf(Vec<String>),
}

/// How a command and a rule belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Not at all.
    Miss,
    /// What is only known when it runs decides.
    Maybe,
    /// The command is what the rule names.
    Hit,
}

/// Compares the elements of one rule with the words of one command.
pub(super) fn fit(elements: &[Element], words: &[Word]) -> Fit {
    let (Some((program, rest)), Some((command, arguments))) =
        (elements.split_first(), words.split_first())
    else {
        return Fit::Miss;
    };
    let of_program = program.fits_program(command);
    if of_program == Fit::Miss {
        return Fit::Miss;
    }
    of_program.min(arguments_fit(
        rest,
        arguments,
        program_name(command).unwrap_or_default(),
    ))
}

/// The last path component of a command that is known.
pub(super) fn program_name(command: &Word) -> Option<&str> {
    command.known()?.rsplit('/').next()
}

/// A set of how many elements are matched so far, one bit each: surely, and possibly.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    surely: u32,
    maybe: u32,
}

fn arguments_fit(elements: &[Element], words: &[Word], program: &str) -> Fit {
    let mut reached = Reached {
        surely: 1,
        maybe: 1,
    };
    let all = 1_u32 << elements.len().min(MAX_ELEMENTS);
    let mut behind = Value::No;
    for word in words {
        if reached.surely & all != 0 || reached.maybe == 0 {
            break;
        }
        let mut next = Reached::default();
        let is_option = word.may_begin_with('-');
        for (place, element) in elements.iter().enumerate() {
            let bit = 1_u32 << place;
            if reached.maybe & bit == 0 {
                continue;
            }
            let surely = reached.surely & bit != 0;
            if word.splits() {
                // Any number of words, which may be any: everything behind is possible, and nothing is certain.
                next.maybe |= (all << 1).wrapping_sub(bit);
                // The words in front of it may still be passed over by what follows.
                continue;
            }
            let fit = if behind == Value::Yes {
                Fit::Miss
            } else {
                element.fits(word)
            };
            if fit >= Fit::Maybe {
                next.maybe |= bit << 1;
            }
            if surely && fit == Fit::Hit {
                next.surely |= bit << 1;
            }
            if is_option || behind != Value::No || element.is_option() {
                next.maybe |= bit;
                if surely && (word.known().is_some() || behind == Value::Yes) {
                    next.surely |= bit;
                }
            }
        }
        next.maybe |= reached.maybe & all;
        next.surely |= reached.surely & all;
        next.maybe |= next.surely;
        behind = match word.known() {
            _ if behind == Value::Yes => Value::No,
            Some(text) if is_option => value_of(program, text),
            None if is_option => Value::Perhaps,
            _ => Value::No,
        };
        reached = next;
    }
    if reached.surely & all != 0 {
        Fit::Hit
    } else if reached.maybe & all != 0 {
        Fit::Maybe
    } else {
        Fit::Miss
    }
}

impl Element {
    fn fits_program(&self, command: &Word) -> Fit {
        let Self::OneOf(names) = self else {
            return Fit::Hit;
        };
        let Some(known) = command.known() else {
            return Fit::Maybe;
        };
        let last = program_name(command).unwrap_or_default();
        if names.iter().any(|name| *name == known || *name == last) {
            Fit::Hit
        } else {
            Fit::Miss
        }
    }

    fn fits(&self, word: &Word) -> Fit {
        let Self::OneOf(names) = self else {
            return Fit::Hit;
        };
        match word.known() {
            Some(known) if names.iter().any(|name| same_argument(name, known)) => Fit::Hit,
            None if names.iter().any(|name| may_be_argument(name, word)) => Fit::Maybe,
            _ => Fit::Miss,
        }
    }

    fn is_option(&self) -> bool {
        match self {
            Self::Any => false,
            Self::OneOf(names) => names.iter().any(|name| name.starts_with('-')),
        }
    }
}

fn same_argument(name: &str, word: &str) -> bool {
    if name == word {
        return true;
    }
    if name.starts_with("--") {
        return word
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('='));
    }
    let Some(letter) = single_letter(name) else {
        return false;
    };
    word.strip_prefix('-').is_some_and(|cluster| {
        cluster
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .any(|have| have == letter)
    })
}

fn may_be_argument(name: &str, word: &Word) -> bool {
    word.may_be(name)
        || (name.starts_with("--") && word.may_start_with(&format!("{name}=")))
        || (single_letter(name).is_some()
            && (word.may_start_with(name) || same_argument(name, &word.shown())))
}

/// The letter of `-x`.
fn single_letter(name: &str) -> Option<char> {
    let mut letters = name.strip_prefix('-')?.chars();
    let letter = letters.next().filter(char::is_ascii_alphanumeric)?;
    letters.next().is_none().then_some(letter)
}

impl Serialize for Element {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("*"),
            Self::OneOf(words) => match words.as_slice() {
                [word] => serializer.serialize_str(word),
                words => words.serialize(serializer),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a word, \"*\", or a list of words")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Element, E> {
        Ok(match word {
            "*" => Element::Any,
            word => Element::OneOf(vec![word.to_owned()]),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Element, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = sequence.next_element()? {
            words.push(word);
        }
        Ok(Element::OneOf(words))
    }
}
