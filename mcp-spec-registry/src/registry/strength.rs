//! How much a checkpoint is worth against an agent that cheats on purpose: who could reach behind whose back.

use std::collections::{BTreeSet, HashMap};

use super::{Registry, RegistryError, lock};
use crate::run::{Access, RunRecord, Strength};

/// Uids seen on sockets, by principal. A principal that was never seen on a socket counts as unknown.
#[derive(Debug, Default)]
pub struct Peers {
    agents: HashMap<String, u32>,
}

impl Registry {
    /// Remembers the uid an agent connected with.
    pub fn saw_agent(&self, agent: &str, uid: u32) {
        lock(&self.0.peers).agents.insert(agent.to_owned(), uid);
    }

    pub(super) fn strength_of(&self, record: &RunRecord) -> Result<Strength, RegistryError> {
        let agent = record
            .run
            .claimant
            .clone()
            .or_else(|| record.plans.last().map(|plan| plan.author.clone()));
        let agent_uid = agent
            .as_ref()
            .and_then(|agent| lock(&self.0.peers).agents.get(agent).copied());
        let mut services = Vec::new();
        let names: BTreeSet<String> = match record.current_plan() {
            Some(revision) => self
                .plan(&revision.digest)?
                .steps
                .iter()
                .map(|step| step.server.clone())
                .collect(),
            None => BTreeSet::new(),
        };
        for name in names {
            let uid = self.service(&name)?.and_then(|service| service.uid);
            services.push((name, uid));
        }
        let approver = record
            .decisions
            .last()
            .map(|decision| (decision.approver.clone(), decision.approver_uid));
        Ok(strength(
            rustix::process::geteuid().as_raw(),
            agent_uid,
            &services,
            approver.as_ref(),
        ))
    }
}

/// Compares the uids. Unknown counts as shared.
pub fn strength(
    registry: u32,
    agent: Option<u32>,
    services: &[(String, Option<u32>)],
    approver: Option<&(String, Option<u32>)>,
) -> Strength {
    let mut reasons = Vec::new();
    match agent {
        None => reasons.push(
            "the agent's uid is not known; connect it through `mcp-spec-registry stdio` under a uid of its own"
                .to_owned(),
        ),
        Some(agent) => {
            if agent == registry || agent == 0 {
                reasons.push(format!(
                    "agent and registry share uid {agent}; run `mcp-spec-registry serve` under another uid with --agent-group"
                ));
            }
            for (name, uid) in services {
                if *uid == Some(agent) {
                    reasons.push(format!("agent and {name} share uid {agent}; run {name} with --http under another uid"));
                }
            }
            if let Some((name, Some(uid))) = approver.filter(|(_, uid)| *uid == Some(agent)) {
                reasons.push(format!("{name} decided in a session of the agent's uid {uid}; decide from another login"));
            }
        }
    }
    for (name, _) in services.iter().filter(|(_, uid)| uid.is_none()) {
        reasons.push(format!("the uid of {name} is not known"));
    }
    if let Some((name, None)) = approver {
        reasons.push(format!(
            "{name} decided on the page, where the uid of the browser is not known"
        ));
    }
    let level = if reasons.is_empty() {
        Access::Separated
    } else {
        Access::Advisory
    };
    Strength { level, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_separated_only_when_nobody_shares_the_agents_uid() {
        let shell = |uid| vec![("shell".to_owned(), uid)];
        let ana = |uid| ("ana".to_owned(), uid);
        let level = |registry, agent, services: &[_], approver: Option<&_>| {
            strength(registry, agent, services, approver).level
        };
        assert_eq!(
            level(10, Some(20), &shell(Some(30)), Some(&ana(Some(40)))),
            Access::Separated
        );
        for (registry, agent, service, approver) in [
            (20, Some(20), Some(30), Some(40)), // the agent's own registry
            (10, Some(0), Some(30), Some(40)),  // root reaches everything
            (10, None, Some(30), Some(40)),
            (10, Some(20), Some(20), Some(40)),
            (10, Some(20), None, Some(40)),
            (10, Some(20), Some(30), Some(20)),
            (10, Some(20), Some(30), None),
        ] {
            assert_eq!(
                level(registry, agent, &shell(service), Some(&ana(approver))),
                Access::Advisory
            );
        }
    }
}
