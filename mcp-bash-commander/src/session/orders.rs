//! Orders to end the processes of a run, kept for what is still on its way when they come.
//!
//! Between the registry's permit and the process lie the hashing of inputs and the making of a jail. An order that comes in between
//! finds no process; it must hold for the one that comes up after it.

use std::collections::HashMap;

use super::{OrderMark, Origin};

/// Runs remembered; what is on its way longer than so many others were ended does not exist.
const MOST_RUNS: usize = 4096;

/// The newest order for each run.
#[derive(Debug, Default)]
pub(super) struct Orders {
    count: u64,
    runs: HashMap<String, Newest>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Newest {
    /// For everything of the run.
    all: OrderMark,
    /// For what does not outlive its step.
    steps: OrderMark,
}

impl Orders {
    pub(super) fn now(&self) -> OrderMark {
        OrderMark(self.count)
    }

    pub(super) fn note(&mut self, run_id: &str, and_lasting: bool) {
        self.count += 1;
        if self.runs.len() >= MOST_RUNS && !self.runs.contains_key(run_id) {
            let oldest = self
                .runs
                .iter()
                .min_by_key(|(_, newest)| newest.steps)
                .map(|(run_id, _)| run_id.clone());
            oldest.map(|run_id| self.runs.remove(&run_id));
        }
        let newest = self.runs.entry(run_id.to_owned()).or_default();
        newest.steps = OrderMark(self.count);
        if and_lasting {
            newest.all = OrderMark(self.count);
        }
    }

    /// Whether an order since the registry was asked concerns what `origin` starts.
    pub(super) fn concern(&self, origin: &Origin) -> bool {
        self.runs.get(&origin.run_id).is_some_and(|newest| {
            let order = if origin.outlives_step {
                newest.all
            } else {
                newest.steps
            };
            order > origin.asked_at
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(run_id: &str, outlives_step: bool, asked_at: OrderMark) -> Origin {
        Origin {
            run_id: run_id.to_owned(),
            action_id: "ac_1".to_owned(),
            outlives_step,
            asked_at,
        }
    }

    #[test]
    fn an_order_concerns_what_was_asked_for_before_it() {
        let mut orders = Orders::default();
        orders.note("r1", true);
        let asked_at = orders.now();
        assert!(!orders.concern(&origin("r1", false, asked_at)));
        orders.note("r1", false);
        assert!(orders.concern(&origin("r1", false, asked_at)));
        assert!(!orders.concern(&origin("r1", true, asked_at)));
        assert!(!orders.concern(&origin("r2", false, asked_at)));
        orders.note("r1", true);
        assert!(orders.concern(&origin("r1", true, asked_at)));
        // After a pause the run goes on.
        assert!(!orders.concern(&origin("r1", false, orders.now())));
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut orders = Orders::default();
        let asked_at = orders.now();
        for number in 0..=MOST_RUNS {
            orders.note(&format!("r{number}"), true);
        }
        assert_eq!(orders.runs.len(), MOST_RUNS);
        let newest = format!("r{MOST_RUNS}");
        assert!(orders.concern(&origin(&newest, true, asked_at)));
    }
}
