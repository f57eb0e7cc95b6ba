//! Nodes and pods out of network namespaces and cgroups, for the tests, the demo and the benchmark.
//!
//! A [`net::Net`] is one small data centre on this machine: nodes are namespaces joined by a veth link, pods are
//! namespaces behind a bridge of their node, each with its own cgroup. Nothing is made in the machine's own network
//! namespace. Everything carries the id of a [`run::Run`], so that what a crash leaves behind is found and removed.
//!
//! Everything here needs root. Errors are [`anyhow::Error`]: the readers are tests and the demo, which only print them.

pub mod agent;
pub mod capture;
pub mod cgroup;
pub mod http;
pub mod impair;
pub mod interrupt;
pub mod load;
pub mod manifests;
pub mod mesh;
pub mod net;
pub mod netns;
pub mod pcap;
pub mod process;
pub mod programs;
pub mod rotations;
pub mod run;
pub mod wait;
