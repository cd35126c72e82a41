//! The nodes by number, sets of them, and the names by which `decide` knows them.

use outrider_ha::MemberName;

/// A node, by number: 0 is member a.
pub type NodeId = u8;

/// A set of nodes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nodes(u8);

impl Nodes {
    /// Nobody.
    pub const NONE: Nodes = Nodes(0);

    /// With `node` in it.
    #[must_use]
    pub const fn with(self, node: NodeId) -> Self {
        Nodes(self.0 | 1 << node)
    }

    /// Without `node` in it.
    #[must_use]
    pub const fn without(self, node: NodeId) -> Self {
        Nodes(self.0 & !(1 << node))
    }

    /// Whether `node` is in it.
    #[must_use]
    pub const fn has(self, node: NodeId) -> bool {
        self.0 >> node & 1 == 1
    }

    /// Those in it, ascending.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        (0..8).filter(move |node| self.has(*node))
    }

    /// Every subset of it.
    pub fn subsets(self) -> impl Iterator<Item = Nodes> {
        (0..=self.0).filter(move |subset| subset & !self.0 == 0).map(Nodes)
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The name of a node.
pub(crate) fn name(node: NodeId) -> MemberName {
    MemberName::from(NAMES[usize::from(node)])
}

/// The node of a name.
///
/// # Panics
/// When no node has it: `decide` made it up.
pub(crate) fn number(name: &MemberName) -> NodeId {
    let place = NAMES.iter().position(|known| *known == name.as_str());
    u8::try_from(place.expect("decide names only members that it saw")).expect("few")
}

/// The names of these nodes, in their order.
pub(crate) fn names(nodes: Nodes) -> Vec<MemberName> {
    nodes.iter().map(name).collect()
}

/// The nodes of these names.
///
/// # Panics
/// As [`number`].
pub(crate) fn numbers(names: &[MemberName]) -> Nodes {
    names.iter().map(number).fold(Nodes::NONE, Nodes::with)
}
