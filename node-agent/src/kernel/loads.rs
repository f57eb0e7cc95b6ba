//! How many connections lead to each endpoint of the Services that the kernel resolves: rows that the programs and the agent
//! count in, each in a word of its own.

use super::KernelError;
use crate::sys::shared_words::SharedWords;
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use tramline_common::{
    Address,
    map::name,
    service::{Load, MAX_LOADS},
};

const WORDS: usize = size_of::<Load>() / size_of::<u64>();
/// The words of a row: `Load`'s address (two of them), port, the kernel's connections and the agent's.
const ADDRESS: usize = 0;
const PORT: usize = 2;
const KERNEL: usize = 3;
const AGENT: usize = 4;

/// The rows. Row zero is nobody's.
#[derive(Debug)]
pub struct EndpointLoads {
    words: SharedWords,
    /// Open for as long as programs that use it may be loaded; tests have none.
    _map: Option<MapData>,
}

impl EndpointLoads {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let Some(Map::Array(array)) = ebpf.take_map(name::LOADS) else {
            return Err(KernelError::Missing(name::LOADS));
        };
        let words = SharedWords::map(array.fd().as_fd(), MAX_LOADS * WORDS);
        Ok(Self {
            words: words.map_err(|source| KernelError::Shared {
                map: name::LOADS,
                source,
            })?,
            _map: Some(array),
        })
    }

    /// Rows that no program knows.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self {
            words: SharedWords::anonymous(MAX_LOADS * WORDS).unwrap(),
            _map: None,
        }
    }

    /// What a program does when a connection begins.
    #[cfg(test)]
    pub(crate) fn add_kernel(&self, row: u32, connections: u64) {
        self.set(row, KERNEL, self.get(row, KERNEL).wrapping_add(connections));
    }

    fn word(&self, row: u32, word: usize) -> Option<&AtomicU64> {
        let row = usize::try_from(row).ok().filter(|row| *row != 0)?;
        self.words.word(row * WORDS + word)
    }

    fn get(&self, row: u32, word: usize) -> u64 {
        self.word(row, word).map_or(0, |word| word.load(Relaxed))
    }

    fn set(&self, row: u32, word: usize, value: u64) {
        if let Some(word) = self.word(row, word) {
            word.store(value, Relaxed);
        }
    }

    /// All rows that can be somebody's.
    pub fn rows(&self) -> impl Iterator<Item = u32> + use<> {
        (1..MAX_LOADS).filter_map(|row| u32::try_from(row).ok())
    }

    /// Whose row it is.
    pub fn owner(&self, row: u32) -> Option<SocketAddr> {
        let port = u16::try_from(self.get(row, PORT))
            .ok()
            .filter(|port| *port != 0)?;
        let mut octets = [0; 16];
        let (left, right) = octets.split_at_mut(8);
        left.copy_from_slice(&self.get(row, ADDRESS).to_ne_bytes());
        right.copy_from_slice(&self.get(row, ADDRESS + 1).to_ne_bytes());
        Some(SocketAddr::new(IpAddr::from(Address { octets }), port))
    }

    /// Gives a row to an endpoint, which has no connection yet.
    pub fn assign(&self, row: u32, endpoint: SocketAddr) {
        let octets = Address::from(endpoint.ip()).octets;
        let half = |at: usize| {
            let bytes = octets.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        self.set(row, KERNEL, 0);
        self.set(row, AGENT, 0);
        self.set(row, ADDRESS, half(0));
        self.set(row, ADDRESS + 1, half(8));
        self.set(row, PORT, endpoint.port().into());
    }

    /// Takes a row from its endpoint.
    pub fn free(&self, row: u32) {
        self.set(row, PORT, 0);
    }

    /// Connections to the endpoint that the kernel let pass.
    pub fn kernel(&self, row: u32) -> u64 {
        Load::connections(self.get(row, KERNEL), 0)
    }

    /// Tells how many the agent carries.
    pub fn set_agent(&self, row: u32, connections: u64) {
        self.set(row, AGENT, connections);
    }

    /// How many the agent carries.
    pub fn agent(&self, row: u32) -> u64 {
        self.get(row, AGENT)
    }
}
