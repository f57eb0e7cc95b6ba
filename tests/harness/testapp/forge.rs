//! TCP SYN packets with any source address: what a process with CAP_NET_RAW can put on the wire.
//!
//! Header layouts: RFC 791 (IPv4) and RFC 9293 (TCP). The kernel fills the IPv4 checksum and length of a raw packet
//! (raw(7)); the TCP checksum is ours.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{errors, out};

#[derive(Args, Debug)]
pub(crate) struct Forge {
    /// Whom to pretend to be.
    #[arg(long)]
    from: SocketAddrV4,
    #[arg(long)]
    to: SocketAddrV4,
    /// `SO_MARK` values, one packet for each.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    marks: Vec<u32>,
}

impl Forge {
    pub(crate) fn run(self) -> Result<()> {
        // IPPROTO_RAW implies IP_HDRINCL.
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).context("raw socket")?;
        let packet = syn(self.from, self.to);
        let to = SocketAddr::from((*self.to.ip(), 0)).into();
        for mark in self.marks {
            let sent = socket.set_mark(mark).and_then(|()| socket.send_to(&packet, &to));
            let result = sent.map_or_else(|error| errors::name(&error), |_| "sent".to_owned());
            out::line(&json!({"mark": mark, "result": result}))?;
        }
        Ok(())
    }
}

fn syn(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(20);
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(1_000_u32.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 5 << 4, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let mut pseudo = Vec::with_capacity(32);
    pseudo.extend(from.ip().octets());
    pseudo.extend(to.ip().octets());
    pseudo.extend([0, 6, 0, 20]);
    pseudo.extend(&tcp);
    let sum = checksum(&pseudo);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(tcp);
    packet
}

/// The Internet checksum of an even number of bytes (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_packet_with_its_checksum_is_zero() {
        let (from, to) = (
            "10.77.1.10:40000".parse().expect("v4"),
            "10.77.2.11:5000".parse().expect("v4"),
        );
        let packet = syn(from, to);
        let mut pseudo = packet[12..20].to_vec();
        pseudo.extend([0, 6, 0, 20]);
        pseudo.extend(&packet[20..]);
        assert_eq!(checksum(&pseudo), 0);
    }
}
