//! Nodes and pods out of network namespaces and cgroups, for the tests and the demo.
