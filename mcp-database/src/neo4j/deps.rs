//! What a node depends on and what depends on it: as a list, a tree, cycles, or the impact of a change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{Neo4j, within};
use super::error::GraphError;
use super::walk::{Cut, Direction, Edge, Reach, Reached, Start, Walk, find};

/// Deepest walk.
pub const DEEPEST: usize = 10;
/// Most nodes of a walk.
pub const MOST_NODES: usize = 2_000;
/// Relationships of a walk that are looked at.
const MOST_RELATIONSHIPS: usize = 10_000;
/// Cycles that are told.
const MOST_CYCLES: usize = 20;

/// What is told of a walk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every node that is reached, with its depth.
    #[default]
    List,
    /// A line for each relationship, indented by depth; a node is opened where it is met first.
    Tree,
    /// The cycles among what is reached.
    Cycles,
    /// How many nodes of which labels are reached at each depth, and which.
    Impact,
}

/// A question about dependencies.
#[derive(Debug, Clone)]
pub struct Question {
    /// Of which node.
    pub start: Start,
    /// Which way.
    pub direction: Direction,
    /// Types of relationships that count; all if empty.
    pub types: Vec<String>,
    /// How deep, 1 to [`DEEPEST`].
    pub depth: usize,
    /// How many nodes, at most [`MOST_NODES`].
    pub nodes: usize,
    /// What is told.
    pub mode: Mode,
    /// How long it may take; the source's own limits apply.
    pub timeout: Option<Duration>,
}

/// What is reached at one depth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Level {
    /// Relationships from the start.
    pub depth: usize,
    /// Nodes.
    pub count: usize,
    /// Nodes by label.
    pub labels: BTreeMap<String, usize>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dependencies {
    /// Where it starts.
    pub start: Reached,
    /// How many nodes were reached, without the start.
    pub reached: usize,
    /// The nodes, nearest first; of list and impact.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Reached>,
    /// The lines of a tree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tree: Vec<String>,
    /// The cycles, each as the names on it, the first again at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cycles: Vec<Vec<String>>,
    /// Counts by depth; of impact.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<Level>,
    /// Why not everything is there, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

impl Neo4j {
    /// Follows dependencies.
    ///
    /// # Errors
    /// A start that is none, a depth that is too deep, or why the server did not answer.
    pub async fn dependencies(&self, question: &Question) -> Result<Dependencies, GraphError> {
        if !(1..=DEEPEST).contains(&question.depth) {
            return Err(GraphError::Argument(format!(
                "the depth {} is not 1 to {DEEPEST}",
                question.depth
            )));
        }
        if question.types.iter().any(String::is_empty) {
            return Err(GraphError::Argument(
                "a type of relationships has an empty name".to_owned(),
            ));
        }
        let reach = Reach {
            depth: question.depth,
            nodes: question.nodes.clamp(1, MOST_NODES).saturating_add(1),
            relationships: MOST_RELATIONSHIPS,
        };
        let limit = self.limit(question.timeout);
        let walk = within(limit, async {
            let mut reading = self.reading(limit).await?;
            let start = find(&mut reading, &question.start).await?;
            let (direction, types) = (question.direction, &question.types);
            let walk = Walk::from(&mut reading, vec![start], direction, types, reach).await?;
            reading.close().await?;
            Ok(walk)
        })
        .await?;
        let mut nodes = walk.nodes.iter().cloned();
        let Some(start) = nodes.next() else {
            return Err(GraphError::Argument("there is no start".to_owned()));
        };
        let nodes: Vec<Reached> = nodes.collect();
        let mut found = Dependencies {
            start,
            reached: nodes.len(),
            nodes: Vec::new(),
            tree: Vec::new(),
            cycles: Vec::new(),
            levels: Vec::new(),
            cut: walk.cut,
        };
        match question.mode {
            Mode::List => found.nodes = nodes,
            Mode::Tree => found.tree = tree(&walk, question.direction),
            Mode::Cycles => found.cycles = cycles(&walk),
            Mode::Impact => {
                found.levels = levels(&nodes);
                found.nodes = nodes;
            }
        }
        Ok(found)
    }
}

fn levels(nodes: &[Reached]) -> Vec<Level> {
    let mut levels: BTreeMap<usize, Level> = BTreeMap::new();
    for node in nodes {
        let level = levels.entry(node.depth).or_insert_with(|| Level {
            depth: node.depth,
            count: 0,
            labels: BTreeMap::new(),
        });
        level.count += 1;
        for label in &node.labels {
            *level.labels.entry(label.clone()).or_default() += 1;
        }
    }
    levels.into_values().collect()
}

/// The relationships of each node as they are walked: where they lead, and which they are.
fn walked(walk: &Walk, direction: Direction) -> Vec<Vec<(usize, &Edge)>> {
    let mut from: Vec<Vec<(usize, &Edge)>> = vec![Vec::new(); walk.nodes.len()];
    for edge in &walk.edges {
        if direction != Direction::Up {
            from[edge.from].push((edge.to, edge));
        }
        if direction != Direction::Down {
            from[edge.to].push((edge.from, edge));
        }
    }
    from
}

fn tree(walk: &Walk, direction: Direction) -> Vec<String> {
    let from = walked(walk, direction);
    let mut lines = vec![label(&walk.nodes[0])];
    let mut opened = BTreeSet::from([0]);
    // The last in is told next, so that children stand below their parents.
    let mut waiting: Vec<(usize, usize, &Edge, usize)> = Vec::new();
    let push = |waiting: &mut Vec<_>, node: usize, indent: usize| {
        let children = from[node].iter().rev();
        waiting.extend(children.map(|(to, edge)| (*to, node, *edge, indent)));
    };
    push(&mut waiting, 0, 1);
    while let Some((node, parent, edge, indent)) = waiting.pop() {
        let arrow = if edge.from == parent { "→" } else { "←" };
        let reached = &walk.nodes[node];
        // A node is opened where it is nearest to the start, even if it is met deeper before.
        let is_new = reached.depth == indent && opened.insert(node);
        let again = if is_new { "" } else { " ↑" };
        lines.push(format!(
            "{}{arrow} {} {}{again}",
            "  ".repeat(indent),
            edge.kind,
            label(reached)
        ));
        if is_new {
            push(&mut waiting, node, indent + 1);
        }
    }
    lines
}

fn label(node: &Reached) -> String {
    if node.labels.is_empty() {
        return format!("({})", node.name);
    }
    format!("(:{} {})", node.labels.join(":"), node.name)
}

/// A cycle for each relationship that leads back on the way to it, which is at least one wherever there are any.
fn cycles(walk: &Walk) -> Vec<Vec<String>> {
    let from = walked(walk, Direction::Down);
    let mut found = BTreeSet::new();
    let mut done = vec![false; walk.nodes.len()];
    for root in 0..walk.nodes.len() {
        if done[root] {
            continue;
        }
        let mut way: Vec<(usize, usize)> = vec![(root, 0)];
        let mut on_way = BTreeMap::from([(root, 0_usize)]);
        while let Some((node, child)) = way.last_mut() {
            let Some((to, _)) = from[*node].get(*child) else {
                done[*node] = true;
                on_way.remove(node);
                way.pop();
                continue;
            };
            *child += 1;
            if let Some(begin) = on_way.get(to) {
                let mut cycle: Vec<usize> = way[*begin..].iter().map(|(node, _)| *node).collect();
                // The same cycle begins the same, wherever it was entered.
                let least = (0..cycle.len()).min_by_key(|at| cycle[*at]).unwrap_or(0);
                cycle.rotate_left(least);
                if found.len() < MOST_CYCLES {
                    found.insert(cycle);
                }
            } else if !done[*to] {
                on_way.insert(*to, way.len());
                way.push((*to, 0));
            }
        }
    }
    let mut found: Vec<Vec<usize>> = found.into_iter().collect();
    found.sort_by_key(Vec::len);
    found
        .into_iter()
        .map(|cycle| {
            let ring = cycle.iter().chain(cycle.first());
            ring.map(|node| label(&walk.nodes[*node])).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(depths: &[usize], edges: &[(usize, usize)]) -> Walk {
        let nodes = depths.iter().enumerate().map(|(place, depth)| Reached {
            id: place.to_string(),
            labels: vec!["S".to_owned()],
            name: format!("n{place}"),
            depth: *depth,
        });
        let edges = edges.iter().map(|(from, to)| Edge {
            from: *from,
            to: *to,
            kind: "T".to_owned(),
        });
        let mut walk = Walk::default();
        walk.nodes.extend(nodes);
        walk.edges.extend(edges);
        walk
    }

    #[test]
    fn a_tree_opens_each_node_once_where_it_is_nearest() {
        let walk = walk(&[0, 1, 1, 2], &[(0, 1), (0, 2), (1, 2), (2, 3), (3, 0)]);
        assert_eq!(
            tree(&walk, Direction::Down),
            [
                "(:S n0)",
                "  → T (:S n1)",
                "    → T (:S n2) ↑",
                "  → T (:S n2)",
                "    → T (:S n3)",
                "      → T (:S n0) ↑",
            ]
        );
    }

    #[test]
    fn cycles_are_found_once_shortest_first() {
        let walk = walk(
            &[0, 1, 1, 2],
            &[(0, 1), (1, 2), (2, 0), (2, 3), (3, 1), (3, 3)],
        );
        let names = |cycle: &[usize]| -> Vec<String> {
            cycle.iter().map(|node| format!("(:S n{node})")).collect()
        };
        assert_eq!(
            cycles(&walk),
            [names(&[3, 3]), names(&[0, 1, 2, 0]), names(&[1, 2, 3, 1])]
        );
        assert!(cycles(&super::tests::walk(&[0, 1], &[(0, 1)])).is_empty());
    }
}
