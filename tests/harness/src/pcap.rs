//! Reads a capture file: TCP streams put together, TLS record headers walked, bytes searched.
//!
//! Formats: pcap (draft-ietf-opsawg-pcap), Ethernet, IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293), the TLS record
//! header (RFC 8446, 5.1).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail};

/// The magic number of a capture in microseconds, in this machine's byte order.
const MAGIC: [u8; 4] = 0xa1b2_c3d4_u32.to_ne_bytes();
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
/// Plaintext limit plus the expansion a record may have (RFC 8446, 5.2).
const TLS_RECORD_LIMIT: usize = 16_384 + 256;

/// A capture, in memory.
#[derive(Debug, Default)]
pub struct Trace {
    frames: Vec<Vec<u8>>,
    /// A 4-tuple is used again by later connections: the number tells them apart.
    streams: BTreeMap<(Direction, u32), Stream>,
    latest: BTreeMap<Direction, u32>,
}

/// One direction of a TCP connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Direction {
    /// Who sent.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
}

/// The bytes of one direction, in order.
#[derive(Debug, Default)]
pub struct Stream {
    /// Sequence number of the first byte, from the SYN or else the first segment seen.
    start: Option<u32>,
    segments: BTreeMap<u32, Vec<u8>>,
    /// Whether a reset was seen.
    pub reset: bool,
}

impl Stream {
    /// The bytes from the first to the first gap.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::new();
        for (&offset, data) in &self.segments {
            let offset = offset as usize;
            if offset > out.len() {
                break;
            }
            // A retransmission may repeat and extend what is there.
            let known = out.len() - offset;
            if known < data.len() {
                out.extend_from_slice(&data[known..]);
            }
        }
        out
    }

    /// How many bytes were sent, repeated ones counted once, those behind a gap included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments
            .iter()
            .map(|(offset, data)| *offset as usize + data.len())
            .max()
            .unwrap_or(0)
    }

    /// Whether no byte was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

/// What [`Trace::tls_only`] saw.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TlsSeen {
    /// Directions that carried bytes.
    pub streams: usize,
    /// TLS records in them.
    pub records: usize,
    /// Of which application data, hence encrypted.
    pub application_data: usize,
    /// Bytes in all records.
    pub bytes: usize,
}

impl Trace {
    /// Reads a capture file of Ethernet frames.
    ///
    /// # Errors
    /// Another format, or a truncated packet (bytes unseen would prove nothing).
    pub fn parse(file: &[u8]) -> Result<Self> {
        if file.get(..4) != Some(&MAGIC) {
            bail!("not a capture in microseconds of this byte order");
        }
        if native(file, 20)? != 1 {
            bail!("not a capture of Ethernet");
        }
        let mut trace = Self::default();
        let mut at = 24;
        while at < file.len() {
            let (kept, sent) = (native(file, at + 8)? as usize, native(file, at + 12)?);
            if kept < sent as usize {
                bail!("a packet was cut from {sent} to {kept} bytes");
            }
            let frame = file
                .get(at + 16..at + 16 + kept)
                .context("a packet ends behind the file")?;
            trace.take(frame);
            at += 16 + kept;
        }
        Ok(trace)
    }

    fn take(&mut self, frame: &[u8]) {
        self.frames.push(frame.to_vec());
        let Some((from, to, segment)) = ip_payload(frame) else {
            return;
        };
        let Some(segment) = Segment::parse(segment) else {
            return;
        };
        let direction = Direction {
            from: (from, segment.source).into(),
            to: (to, segment.destination).into(),
        };
        let syn = segment.flags & SYN != 0;
        let first = if syn {
            segment.sequence.wrapping_add(1)
        } else {
            segment.sequence
        };
        let latest = self.latest.entry(direction).or_default();
        if syn
            && self
                .streams
                .get(&(direction, *latest))
                .is_some_and(|s| s.start != Some(first))
        {
            *latest += 1;
        }
        let stream = self.streams.entry((direction, *latest)).or_default();
        let start = *stream.start.get_or_insert(first);
        stream.reset |= segment.flags & RST != 0;
        if !segment.data.is_empty() {
            let entry = stream.segments.entry(first.wrapping_sub(start)).or_default();
            if entry.len() < segment.data.len() {
                *entry = segment.data.to_vec();
            }
        }
    }

    /// The number of packets.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.frames.len()
    }

    /// The TCP directions seen, those without a byte included.
    pub fn streams(&self) -> impl Iterator<Item = (&Direction, &Stream)> {
        self.streams
            .iter()
            .map(|((direction, _), stream)| (direction, stream))
    }

    /// Whether `marker` occurs in a packet or across the packets of a stream.
    #[must_use]
    pub fn contains(&self, marker: &[u8]) -> bool {
        let within = |bytes: &[u8]| bytes.windows(marker.len()).any(|window| window == marker);
        !marker.is_empty()
            && (self.frames.iter().any(|f| within(f)) || self.streams.values().any(|s| within(&s.bytes())))
    }

    /// Checks that every TCP byte is within TLS records of connections to or from `port`.
    ///
    /// # Errors
    /// The first byte that is not, with where it was; or a gap in a stream.
    pub fn tls_only(&self, port: u16) -> Result<TlsSeen> {
        let mut seen = TlsSeen::default();
        for (direction, stream) in self.streams().filter(|(_, stream)| !stream.is_empty()) {
            let Direction { from, to } = direction;
            if from.port() != port && to.port() != port {
                bail!("{} plaintext bytes from {from} to {to}", stream.len());
            }
            let bytes = stream.bytes();
            if bytes.len() != stream.len() {
                bail!("a gap at byte {} from {from} to {to}", bytes.len());
            }
            seen.streams += 1;
            seen.bytes += bytes.len();
            walk_records(&bytes, &mut seen).with_context(|| format!("from {from} to {to}"))?;
        }
        Ok(seen)
    }
}

fn walk_records(bytes: &[u8], seen: &mut TlsSeen) -> Result<()> {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + 5) {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !(20..=23).contains(&header[0]) || header[1] != 3 || header[2] > 3 || length > TLS_RECORD_LIMIT {
            bail!("byte {at} begins no TLS record: {header:02x?}");
        }
        seen.records += 1;
        seen.application_data += usize::from(header[0] == 23);
        at += 5 + length;
    }
    // The last record may be cut by the end of the capture or by a killed agent; its header was checked.
    Ok(())
}

/// Addresses and TCP segment of an Ethernet frame, `None` when it is something else.
fn ip_payload(frame: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let packet = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
            // The length is 0 where segmentation offload sent more than 64 KiB at once (BIG TCP).
            let end = if total == 0 { packet.len() } else { total };
            let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            let payload = packet.get(header..end)?;
            (*packet.get(9)? == TCP)
                .then(|| (Ipv4Addr::from(from).into(), Ipv4Addr::from(to).into(), payload))
        }
        [0x86, 0xdd] => {
            let from: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            let payload = packet.get(40..)?;
            (*packet.get(6)? == TCP)
                .then(|| (Ipv6Addr::from(from).into(), Ipv6Addr::from(to).into(), payload))
        }
        _ => None,
    }
}

struct Segment<'a> {
    source: u16,
    destination: u16,
    sequence: u32,
    flags: u8,
    data: &'a [u8],
}

impl<'a> Segment<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let header = usize::from(bytes.get(12)? >> 4) * 4;
        Some(Self {
            source: half(0)?,
            destination: half(2)?,
            sequence: u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?),
            flags: *bytes.get(13)?,
            data: bytes.get(header..)?,
        })
    }
}

fn native(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes
        .get(at..at + 4)
        .context("the capture ends within a header")?;
    Ok(u32::from_ne_bytes(word.try_into()?))
}

#[cfg(test)]
mod tests;
