//! How much of everything: a little in every run, all of it where the environment says `ENDURANCE=full`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;

/// How often things are repeated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Commands one after another.
    pub(crate) execs: u64,
    /// Commands at once.
    pub(crate) crowd: usize,
    /// Bytes one command writes.
    pub(crate) bytes: u64,
    /// Bytes kept of them.
    pub(crate) kept: u64,
    /// Commands whose few bytes of output must not get lost.
    pub(crate) races: u64,
    /// Servers killed.
    pub(crate) kills: u32,
}

const SHORT: Scale = Scale {
    execs: 300,
    crowd: 60,
    bytes: 64 << 20,
    kept: 8 << 20,
    races: 200,
    kills: 30,
};

const FULL: Scale = Scale {
    execs: 10_000,
    crowd: 200,
    bytes: 1 << 30,
    kept: 64 << 20,
    races: 10_000,
    kills: 200,
};

impl Scale {
    /// What the environment asks for.
    ///
    /// # Errors
    /// An `ENDURANCE` that is not `full`: a misspelt one must not pass for the whole test.
    pub(crate) fn asked_for() -> anyhow::Result<Self> {
        match std::env::var("ENDURANCE").as_deref() {
            Err(std::env::VarError::NotPresent) => Ok(SHORT),
            Ok("full") => Ok(FULL),
            other => anyhow::bail!("ENDURANCE is {other:?}; leave it out or write `full`"),
        }
    }
}

/// The seed of whatever is random: a number in `ENDURANCE_SEED`, else always the same.
pub(crate) fn seed() -> anyhow::Result<u64> {
    match std::env::var("ENDURANCE_SEED") {
        Err(_) => Ok(20_261_128),
        Ok(seed) => seed
            .parse()
            .with_context(|| format!("ENDURANCE_SEED is `{seed}`, no number")),
    }
}

/// A small pseudo-random sequence, the same for the same seed.
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// The machine for one test alone: they measure, and would disturb each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
