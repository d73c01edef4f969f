//! Filters compiled: what their patterns ask for, sorted by the path where it is asked.
//!
//! A *clause* is what one place of a pattern asks of the values at one path: a list of operators, or
//! an object with what its members ask. All clauses of all filters that name the same path hang on
//! one [`Node`], so a text is read once for all of them.

use super::operator::{Operator, Scalar};

/// The number of a clause.
pub(super) type ClauseId = usize;
pub(super) type NodeId = usize;

/// Compiled filters.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) filters: Vec<Filter>,
    /// What is asked of the record's members beside `data`.
    pub(super) metadata: NodeId,
    /// What is asked of the members of a body that is JSON.
    pub(super) body: NodeId,
    /// What is asked of a body that is a plain text.
    pub(super) plain: Vec<Leaf>,
    pub(super) clauses: usize,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// All of them have to hold.
    pub(super) terms: Vec<Term>,
    /// Its lists of operators, in the pattern's order.
    pub(super) leaves: Vec<NamedClause>,
}

/// A list of operators as people know it.
#[derive(Clone, Debug)]
pub(super) struct NamedClause {
    pub(super) clause: ClauseId,
    pub(super) path: String,
    pub(super) asks: String,
    pub(super) of: Subject,
    /// It also holds where there is no value.
    pub(super) absence: bool,
}

/// What a clause speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The record's members beside `data`.
    Metadata,
    /// A body that is JSON.
    Json,
    /// A body that is a plain text.
    Plain,
}

/// Holds or not, once its clauses were judged.
#[derive(Clone, Debug)]
pub(super) enum Term {
    Clause(ClauseId),
    /// `$or`: one of these has to hold, with all its terms.
    Or(Vec<Vec<Term>>),
}

/// One path.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The members that somebody asks for. Few, so they are looked through.
    children: Vec<(Box<[u8]>, NodeId)>,
    /// The clauses of these members, each with whether it also holds where there is nothing.
    pub(super) asked_of_children: Vec<(ClauseId, bool)>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) groups: Vec<Group>,
}

/// Asks for a value: one of the operators has to be met.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) clause: ClauseId,
    pub(super) operators: Vec<Operator>,
    /// It also holds where there is no value.
    pub(super) absence: bool,
}

impl Leaf {
    pub(super) fn is_met_by(&self, value: Scalar<'_>) -> bool {
        self.operators.iter().any(|operator| operator.is_met_by(value))
    }
}

/// Asks for an object: all terms have to hold for its members.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) clause: ClauseId,
    pub(super) terms: Vec<Term>,
    /// It also holds where there is no object.
    pub(super) absence: bool,
}

impl Program {
    pub(super) fn new() -> Self {
        let nodes = vec![Node::default(), Node::default()];
        Self { filters: Vec::new(), metadata: 0, body: 1, plain: Vec::new(), clauses: 0, nodes }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn new_clause(&mut self) -> ClauseId {
        self.clauses += 1;
        self.clauses - 1
    }

    /// The node of a member, made if this is the first to ask for it.
    pub(super) fn child(&mut self, parent: NodeId, name: &str) -> NodeId {
        if let Some(child) = self.nodes[parent].child(name.as_bytes()) {
            return child;
        }
        let new = self.nodes.len();
        self.nodes[parent].children.push((name.as_bytes().into(), new));
        self.nodes.push(Node::default());
        new
    }

    pub(super) fn add_leaf(&mut self, parent: NodeId, node: NodeId, leaf: Leaf) {
        self.nodes[parent].asked_of_children.push((leaf.clause, leaf.absence));
        self.nodes[node].leaves.push(leaf);
    }

    /// `parent`: none for a body, which always is there.
    pub(super) fn add_group(&mut self, parent: Option<NodeId>, node: NodeId, group: Group) {
        if let Some(parent) = parent {
            self.nodes[parent].asked_of_children.push((group.clause, group.absence));
        }
        self.nodes[node].groups.push(group);
    }
}

impl Node {
    pub(super) fn child(&self, name: &[u8]) -> Option<NodeId> {
        self.children.iter().find(|(other, _)| **other == *name).map(|(_, child)| *child)
    }

    pub(super) fn has_children(&self) -> bool {
        !self.children.is_empty()
    }

    /// Its clauses, each with whether it also holds where nothing is.
    pub(super) fn clauses(&self) -> impl Iterator<Item = (ClauseId, bool)> {
        let leaves = self.leaves.iter().map(|leaf| (leaf.clause, leaf.absence));
        leaves.chain(self.groups.iter().map(|group| (group.clause, group.absence)))
    }
}
