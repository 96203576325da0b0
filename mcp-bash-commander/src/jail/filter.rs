//! A filter program as short as can be: a search for the call's number, then its own tests.
//!
//! The kernel checks, translates and tries out a program each time it is loaded, so its length is part of what a jail costs. The usual
//! form, one test of the number after the other with each rule's tests in between, is four times as long.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, sock_filter};

/// What becomes of a call: the values the kernel knows.
pub(super) const ALLOW: u32 = 0x7FFF_0000;
pub(super) const TELL: u32 = 0x7FC0_0000;
pub(super) const FAIL_WITH: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where the kernel puts what a program looks at.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// A test of the lower 32 bits of one argument. No call judged here has a wider meaning, and the kernel ignores the upper bits of
/// these arguments, so a filter must too.
#[derive(Debug, Clone, Copy)]
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
pub(super) fn program(architecture: u32, calls: &BTreeMap<u32, Treatment>) -> BpfProgram {
    let mut program = vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        instruction(IF_EQUAL, 1, 0, architecture),
        instruction(RETURN, 0, 0, KILL_PROCESS),
        instruction(LOAD, 0, 0, NUMBER),
    ];
    let calls: Vec<(u32, &Treatment)> = calls.iter().map(|(call, how)| (*call, how)).collect();
    // Where each call's tests are jumped to is known when they have their place.
    let mut jumps = Vec::new();
    search(&mut program, &mut jumps, &calls);
    for (at, alternatives, verdict) in jumps {
        program[at].k = distance(at, program.len());
        judge(&mut program, alternatives, verdict);
    }
    program
}

type Jump<'a> = (usize, &'a [Vec<Condition>], u32);

fn search<'a>(program: &mut BpfProgram, jumps: &mut Vec<Jump<'a>>, calls: &[(u32, &'a Treatment)]) {
    const FEW: usize = 4;
    if calls.len() > FEW {
        let (lower, upper) = calls.split_at(calls.len() / 2);
        program.push(instruction(IF_AT_LEAST, 0, 1, upper[0].0));
        let over = program.len();
        program.push(instruction(JUMP, 0, 0, 0));
        search(program, jumps, lower);
        program[over].k = distance(over, program.len());
        search(program, jumps, upper);
        return;
    }
    for (call, treatment) in calls {
        program.push(instruction(IF_EQUAL, 0, 1, *call));
        match treatment {
            Treatment::Always(verdict) => program.push(instruction(RETURN, 0, 0, *verdict)),
            Treatment::If(verdict, alternatives) => {
                jumps.push((program.len(), alternatives, *verdict));
                program.push(instruction(JUMP, 0, 0, 0));
            }
        }
    }
    program.push(instruction(RETURN, 0, 0, ALLOW));
}

fn judge(program: &mut BpfProgram, alternatives: &[Vec<Condition>], verdict: u32) {
    for conditions in alternatives {
        // A test that fails jumps behind this alternative.
        let mut failing = Vec::new();
        for condition in conditions {
            let (argument, mask, value, holds_if_equal) = match *condition {
                Condition::Any(argument, bits) => (argument, Some(bits), 0, false),
                Condition::BitsNot(argument, mask, value) => (argument, Some(mask), value, false),
                Condition::Is(argument, value) => (argument, None, value, true),
                Condition::IsNot(argument, value) => (argument, None, value, false),
                Condition::Has(argument, bits) => (argument, Some(bits), bits, true),
                Condition::Bits(argument, mask, value) => (argument, Some(mask), value, true),
            };
            program.push(instruction(LOAD, 0, 0, ARGUMENTS + 8 * u32::from(argument)));
            program.extend(mask.map(|mask| instruction(AND, 0, 0, mask)));
            failing.push((program.len(), holds_if_equal));
            program.push(instruction(IF_EQUAL, 0, 0, value));
        }
        program.push(instruction(RETURN, 0, 0, verdict));
        for (at, holds_if_equal) in failing {
            let behind = u8::try_from(program.len() - at - 1).unwrap_or(u8::MAX);
            if holds_if_equal {
                program[at].jf = behind;
            } else {
                program[at].jt = behind;
            }
        }
    }
    program.push(instruction(RETURN, 0, 0, ALLOW));
}

/// How far a jump at `from` has to go to come to `to`.
fn distance(from: usize, to: usize) -> u32 {
    u32::try_from(to - from - 1).unwrap_or(u32::MAX)
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
            JUMP => {
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
