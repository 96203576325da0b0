//! A filter program as short as can be: a search for the call's number, then the tests of its arguments, then each verdict once.
//!
//! The kernel checks, translates and tries out a program each time it is loaded, so its length is part of what a jail costs. The usual
//! form, one test of the number after the other with each rule's tests in between, is many times as long.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, sock_filter};

/// What becomes of a call: the values the kernel knows.
pub(super) const ALLOW: u32 = 0x7FFF_0000;
pub(super) const TELL: u32 = 0x7FC0_0000;
pub(super) const FAIL_WITH: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where the kernel puts what a program looks at.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// A test of the lower 32 bits of one argument. No call judged here has a wider meaning, and the kernel ignores the upper bits of
/// these arguments, so a filter must too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Is(u8, u32),
    IsNot(u8, u32),
    /// All of these bits are set.
    Has(u8, u32),
    /// At least one of these bits is set.
    Any(u8, u32),
    /// The bits of the mask have this value.
    Bits(u8, u32, u32),
    /// They have another.
    BitsNot(u8, u32, u32),
}

/// What a filter does with one call.
#[derive(Debug, Clone)]
pub(super) enum Treatment {
    Always(u32),
    /// This verdict if all conditions of one of the alternatives hold.
    If(u32, Vec<Vec<Condition>>),
}

/// Calls with their treatments; all others are allowed. Calls of another architecture end the process.
///
/// A test can only jump a short way. A program that is too long for that comes out empty, and the kernel refuses it.
pub(super) fn program(architecture: u32, calls: &BTreeMap<u32, Treatment>) -> BpfProgram {
    let mut draft = Draft::default();
    let same = draft.label();
    let killed = draft.verdict(KILL_PROCESS);
    draft.load(ARCHITECTURE);
    draft.test(IF_EQUAL, architecture, same, killed);
    draft.place(same);
    draft.load(NUMBER);
    let calls: Vec<(u32, &Treatment)> = calls.iter().map(|(call, how)| (*call, how)).collect();
    let mut judged = Vec::new();
    search(&mut draft, &mut judged, &calls);
    for Judged {
        alternatives,
        verdict,
        label,
    } in judged
    {
        draft.place(label);
        judge(&mut draft, alternatives, verdict);
    }
    draft.finished().unwrap_or_default()
}

/// Tests of arguments, once for all calls that have the same.
struct Judged<'a> {
    alternatives: &'a [Vec<Condition>],
    verdict: u32,
    label: Label,
}

fn search<'a>(draft: &mut Draft, judged: &mut Vec<Judged<'a>>, calls: &[(u32, &'a Treatment)]) {
    const FEW: usize = 4;
    if calls.len() > FEW {
        let (lower, upper) = calls.split_at(calls.len() / 2);
        let (below, from) = (draft.label(), draft.label());
        draft.test(IF_AT_LEAST, upper[0].0, from, below);
        draft.place(below);
        search(draft, judged, lower);
        draft.place(from);
        search(draft, judged, upper);
        return;
    }
    let allowed = draft.verdict(ALLOW);
    for (number, (call, treatment)) in calls.iter().enumerate() {
        let matched = match treatment {
            Treatment::Always(verdict) => draft.verdict(*verdict),
            Treatment::If(_, alternatives) if alternatives.is_empty() => allowed,
            // One without conditions always holds.
            Treatment::If(verdict, alternatives) if alternatives.iter().any(Vec::is_empty) => {
                draft.verdict(*verdict)
            }
            Treatment::If(verdict, alternatives) => {
                let known = judged.iter().find(|known| {
                    known.verdict == *verdict && known.alternatives == alternatives.as_slice()
                });
                if let Some(known) = known {
                    known.label
                } else {
                    let label = draft.label();
                    judged.push(Judged {
                        alternatives,
                        verdict: *verdict,
                        label,
                    });
                    label
                }
            }
        };
        if number + 1 == calls.len() {
            draft.test(IF_EQUAL, *call, matched, allowed);
        } else {
            let next = draft.label();
            draft.test(IF_EQUAL, *call, matched, next);
            draft.place(next);
        }
    }
}

fn judge(draft: &mut Draft, alternatives: &[Vec<Condition>], verdict: u32) {
    let (allowed, matched) = (draft.verdict(ALLOW), draft.verdict(verdict));
    for (number, conditions) in alternatives.iter().enumerate() {
        let is_last = number + 1 == alternatives.len();
        let failed = if is_last { allowed } else { draft.label() };
        // What the test before has loaded and left as it was.
        let mut loaded = None;
        for (number, condition) in conditions.iter().enumerate() {
            let (argument, mask, value, holds_if_equal) = match *condition {
                Condition::Any(argument, bits) => (argument, Some(bits), 0, false),
                Condition::BitsNot(argument, mask, value) => (argument, Some(mask), value, false),
                Condition::Is(argument, value) => (argument, None, value, true),
                Condition::IsNot(argument, value) => (argument, None, value, false),
                Condition::Has(argument, bits) => (argument, Some(bits), bits, true),
                Condition::Bits(argument, mask, value) => (argument, Some(mask), value, true),
            };
            if loaded != Some((argument, mask)) {
                draft.load(ARGUMENTS + 8 * u32::from(argument));
                if let Some(mask) = mask {
                    draft.keep_bits(mask);
                }
            }
            loaded = Some((argument, mask));
            let is_last = number + 1 == conditions.len();
            let held = if is_last { matched } else { draft.label() };
            if holds_if_equal {
                draft.test(IF_EQUAL, value, held, failed);
            } else {
                draft.test(IF_EQUAL, value, failed, held);
            }
            if !is_last {
                draft.place(held);
            }
        }
        if !is_last {
            draft.place(failed);
        }
    }
}

type Label = usize;

/// A program whose tests jump to labels. Each verdict stands in it once, at its end.
#[derive(Default)]
struct Draft {
    program: BpfProgram,
    /// Where each label is placed.
    labels: Vec<Option<usize>>,
    /// Tests, and the labels that each goes to when it holds and when not.
    tests: Vec<(usize, Label, Label)>,
    verdicts: BTreeMap<u32, Label>,
}

impl Draft {
    fn label(&mut self) -> Label {
        self.labels.push(None);
        self.labels.len() - 1
    }

    fn place(&mut self, label: Label) {
        self.labels[label] = Some(self.program.len());
    }

    fn verdict(&mut self, verdict: u32) -> Label {
        if let Some(label) = self.verdicts.get(&verdict) {
            return *label;
        }
        let label = self.label();
        self.verdicts.insert(verdict, label);
        label
    }

    fn load(&mut self, at: u32) {
        self.program.push(instruction(LOAD, 0, 0, at));
    }

    fn keep_bits(&mut self, mask: u32) {
        self.program.push(instruction(AND, 0, 0, mask));
    }

    fn test(&mut self, code: u16, value: u32, held: Label, failed: Label) {
        self.tests.push((self.program.len(), held, failed));
        self.program.push(instruction(code, 0, 0, value));
    }

    /// The program with its verdicts and jumps; `None` if one of them is too far.
    fn finished(mut self) -> Option<BpfProgram> {
        for (verdict, label) in std::mem::take(&mut self.verdicts) {
            self.place(label);
            self.program.push(instruction(RETURN, 0, 0, verdict));
        }
        for (at, held, failed) in self.tests {
            let distance = |label: Label| {
                let place = self.labels.get(label).copied()??;
                u8::try_from(place.checked_sub(at + 1)?).ok()
            };
            (self.program[at].jt, self.program[at].jf) = (distance(held)?, distance(failed)?);
        }
        Some(self.program)
    }
}

/// Answers calls of the x32 convention as unknown: they carry numbers of their own, which the other filter does not know.
pub(super) fn calling_convention_guard() -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    vec![
        instruction(LOAD, 0, 0, NUMBER),
        instruction(IF_AT_LEAST, 0, 1, X32_BIT),
        instruction(RETURN, 0, 0, FAIL_WITH | libc::ENOSYS.cast_unsigned()),
        instruction(RETURN, 0, 0, ALLOW),
    ]
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The verdict of a program, as the kernel would come to it.
#[cfg(test)]
pub(super) fn verdict(
    program: &[sock_filter],
    architecture: u32,
    call: u32,
    arguments: [u64; 6],
) -> u32 {
    let mut data = Vec::new();
    data.extend(call.to_ne_bytes());
    data.extend(architecture.to_ne_bytes());
    data.extend([0; 8]);
    data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    let word = |at: u32| {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    let (mut at, mut loaded) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            LOAD => {
                loaded = word(k);
                continue;
            }
            AND => {
                loaded &= k;
                continue;
            }
            // A jump, of which ours has none.
            0x05 => {
                at += usize::try_from(k).unwrap_or(usize::MAX);
                continue;
            }
            RETURN => return k,
            IF_EQUAL => loaded == k,
            0x25 => loaded > k,
            IF_AT_LEAST => loaded >= k,
            0x45 => loaded & k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}
