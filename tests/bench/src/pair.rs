//! What a pair of runs is: the same load in the same place, once without and once with the mesh.

/// Where the server is, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    SameNode,
    CrossNode,
    /// On the same node and in neither half in the mesh; the client is, in the second half.
    Outside,
}

/// Which half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    NoMesh,
    /// Both pods enrolled.
    Mesh,
}

impl Place {
    /// Those of the smoke run.
    pub(crate) const SMOKE: [Self; 2] = [Self::SameNode, Self::CrossNode];
    /// Those of the run of paths.
    pub(crate) const PATHS: [Self; 3] = [Self::Outside, Self::SameNode, Self::CrossNode];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SameNode => "same node",
            Self::CrossNode => "cross node",
            Self::Outside => "outside",
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
            (Self::Outside, Side::NoMesh, _) => "no_mesh_outside",
            (Self::Outside, Side::Mesh, false) => "outside",
            (Self::Outside, Side::Mesh, true) => "control_outside",
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
