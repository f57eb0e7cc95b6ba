//! What a pair of runs is: the same load in the same place, once without and once with the mesh.

/// Where the server is, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    SameNode,
    CrossNode,
}

/// Which half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    NoMesh,
    /// Both pods enrolled.
    Mesh,
}

impl Place {
    pub(crate) const ALL: [Self; 2] = [Self::SameNode, Self::CrossNode];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SameNode => "same node",
            Self::CrossNode => "cross node",
        }
    }

    /// The path of the rows. In a control run the second half has no mesh either, and is not called by its name.
    pub(crate) fn path(self, side: Side, control: bool) -> &'static str {
        match (self, side, control) {
            (Self::SameNode, Side::NoMesh, _) => "no_mesh_same_node",
            (Self::CrossNode, Side::NoMesh, _) => "no_mesh_cross_node",
            (Self::SameNode, Side::Mesh, false) => "same_node",
            (Self::CrossNode, Side::Mesh, false) => "cross_node",
            (Self::SameNode, Side::Mesh, true) => "control_same_node",
            (Self::CrossNode, Side::Mesh, true) => "control_cross_node",
        }
    }
}

impl Side {
    /// The order within a pair.
    pub(crate) const BOTH: [Self; 2] = [Self::NoMesh, Self::Mesh];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoMesh => "no mesh",
            Self::Mesh => "mesh",
        }
    }
}
