//! Entries of pods that there are not, in the real maps of an agent: where a lookup has to find its own among theirs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::Pod as Plain;
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, Map, MapData};
use tramline_common::map::{
    FlowKey, MAX_PODS, Pod, PodAddress, PodPort, RangeData, direction, name, plaintext,
};
use tramline_common::verdict::{Passed, ServiceAt, Verdict, VerdictKey, kind};
use tramline_common::{Address, PodId};

/// Namespaces' cookies count from one: no machine comes as far as this.
const FIRST: PodId = 1 << 40;
/// Of the enrolled pods that there may be, those that are left for real ones.
const REAL_PODS: u32 = 16;
/// Destinations that each pod has a verdict on, and live connections of each kind.
const VERDICTS: u32 = 8;
const CONNECTIONS: u32 = 4;

/// Where an agent has pinned its maps.
pub(super) struct Maps {
    directory: PathBuf,
}

impl Maps {
    /// Those of the only agent that uses `bpffs`.
    pub(super) fn of(bpffs: &Path) -> Result<Self> {
        let mut look_in = vec![bpffs.to_owned()];
        while let Some(directory) = look_in.pop() {
            let maps = Self { directory };
            if maps.pin(name::POD_ADDRESSES)?.is_some() {
                return Ok(maps);
            }
            let Self { directory } = maps;
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    look_in.push(entry.path());
                }
            }
        }
        bail!("no agent has pinned anything in {}", bpffs.display())
    }

    /// Gives pods number `from` to `to` their entries: in each map as many as a pod of some size has. Of pods themselves, and
    /// their versions, the kernel has room for 1,024; all that is about addresses, ports, verdicts and connections is there
    /// for every one.
    pub(super) fn fill(&self, from: u32, to: u32) -> Result<()> {
        let pods = || (from..to).map(Made);
        let enrolled = || pods().filter(|pod| pod.0 + REAL_PODS < MAX_PODS as u32);
        self.insert(
            name::PODS,
            enrolled().map(|pod| (pod.id(), Pod { generation: 1 })),
        )?;
        self.insert(name::VERSIONS, enrolled().map(|pod| (pod.id(), 1_u64)))?;
        let addresses = || pods().flat_map(|pod| pod.addresses().map(|address| (pod.id(), address)));
        let own = addresses().map(|(pod, address)| (PodAddress { pod, address }, 1_u32));
        self.insert(name::POD_ADDRESSES, own)?;
        self.insert(name::LOCAL_PODS, addresses().map(|(pod, address)| (address, pod)))?;
        let ports = |ports: &'static [u16], way| {
            pods().flat_map(move |pod| ports.iter().map(move |port| PodPort::new(pod.id(), *port, way)))
        };
        let rows = ports(&[0, 8080, 9090], direction::INBOUND).map(|key| (key, plaintext::DROP));
        self.insert(name::PLAINTEXT, rows)?;
        let listening = ports(&[8080, 9090], direction::INBOUND).map(|key| (key, 1_u64));
        self.insert(name::LISTENING, listening)?;
        let excluded = ports(&[5432], direction::OUTBOUND).map(|key| (key, 1_u32));
        self.insert(name::EXCLUDED_PORTS, excluded)?;
        let verdicts = pods().flat_map(|pod| (0..VERDICTS).map(move |to| pod.verdict(to)));
        self.insert(name::VERDICTS, verdicts)?;
        let connections = || pods().flat_map(|pod| (0..CONNECTIONS).map(move |to| pod.connection(to)));
        self.insert(name::DIRECT, connections())?;
        self.insert(name::OUTSIDE, connections())?;
        let mut ranges: LpmTrie<MapData, RangeData, u64> =
            LpmTrie::try_from(Map::LpmTrie(self.open(name::EXCLUDED_RANGES)?))?;
        for pod in pods() {
            let range = RangeData::new(pod.id(), Address::v4([172, 16, 0, 0]));
            ranges.insert(&Key::new(RangeData::prefix_len(96 + 12), range), 1, 0)?;
        }
        Ok(())
    }

    /// `NAME`, or `NAME-LAYOUT` of the highest layout.
    fn pin(&self, map: &str) -> Result<Option<PathBuf>> {
        let mut pins = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            let layout = match file.strip_prefix(map) {
                Some("") => Some(1),
                Some(rest) => rest.strip_prefix('-').and_then(|number| number.parse().ok()),
                None => None,
            };
            pins.extend(layout.map(|layout: u32| (layout, file)));
        }
        Ok(pins.into_iter().max().map(|(_, file)| self.directory.join(file)))
    }

    fn open(&self, map: &str) -> Result<MapData> {
        let path = self.pin(map)?.with_context(|| format!("{map} is not pinned"))?;
        MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))
    }

    fn insert<K: Plain, V: Plain>(&self, map: &str, entries: impl Iterator<Item = (K, V)>) -> Result<()> {
        let mut opened: HashMap<MapData, K, V> = HashMap::try_from(Map::HashMap(self.open(map)?))?;
        for (key, value) in entries {
            opened
                .insert(key, value, 0)
                .with_context(|| format!("fill {map}"))?;
        }
        Ok(())
    }
}

/// A pod that there is not.
#[derive(Clone, Copy)]
struct Made(u32);

impl Made {
    fn id(self) -> PodId {
        FIRST + PodId::from(self.0)
    }

    fn addresses(self) -> [Address; 2] {
        let [_, high, middle, low] = self.0.to_be_bytes();
        let mut v6 = [0; 16];
        v6[..2].copy_from_slice(&[0xfd, 0x99]);
        v6[12..].copy_from_slice(&self.0.to_be_bytes());
        [Address::v4([10, 64 + high, middle, low]), Address { octets: v6 }]
    }

    /// Its verdict on a port of the pod after it.
    fn verdict(self, to: u32) -> (VerdictKey, Verdict) {
        let next = Self(self.0 + 1);
        let port = 8_000 + to as u16;
        let verdict = Verdict {
            destination: next.id(),
            source_version: 1,
            destination_version: 1,
            kind: kind::DIRECT,
            load: 0,
        };
        (VerdictKey::new(self.id(), next.addresses()[0], port), verdict)
    }

    /// A live connection of the pod after it.
    fn connection(self, number: u32) -> (FlowKey, Passed) {
        let source = Self(self.0 + 1);
        let key = FlowKey {
            pod: self.id(),
            remote: source.addresses()[0],
            local: self.addresses()[0],
            remote_port: 40_000 + number as u16,
            local_port: 8080,
            reserved: 0,
        };
        let passed = Passed {
            socket: (self.id() << 8) | u64::from(number),
            source: source.id(),
            source_version: 1,
            destination_version: 1,
            service: ServiceAt::NONE,
        };
        (key, passed)
    }
}

#[cfg(test)]
mod tests {
    use super::{CONNECTIONS, Made, VERDICTS};
    use std::collections::HashSet;
    use tramline_common::map::MAX_POD_ROWS;
    use tramline_common::verdict::{MAX_PASSED, MAX_VERDICTS};

    #[test]
    fn five_thousand_pods_find_room_and_no_two_share_an_entry() {
        let pods = || (0..5_000).map(Made);
        const { assert!(5_000 * VERDICTS < MAX_VERDICTS as u32 && 5_000 * CONNECTIONS < MAX_PASSED as u32) };
        const { assert!(5_000 * 3 < MAX_POD_ROWS) };
        let verdicts: HashSet<_> = pods()
            .flat_map(|pod| (0..VERDICTS).map(move |to| pod.verdict(to).0))
            .collect();
        assert_eq!(verdicts.len(), 5_000 * VERDICTS as usize);
        let connections: HashSet<_> = pods()
            .flat_map(|pod| (0..CONNECTIONS).map(move |to| pod.connection(to).0))
            .collect();
        assert_eq!(connections.len(), 5_000 * CONNECTIONS as usize);
        let addresses: HashSet<_> = pods().flat_map(Made::addresses).map(|a| a.octets).collect();
        assert_eq!(addresses.len(), 10_000);
    }
}
