//! An IP address as the maps hold it, and the classes of destination that are never captured.

/// 16 bytes in network order; IPv4 as `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Address {
    /// The bytes as on the wire.
    pub octets: [u8; 16],
}

impl Address {
    /// From four IPv4 bytes.
    #[inline(always)]
    pub const fn v4(o: [u8; 4]) -> Self {
        // As one number, which is stored in words: ten bytes of zeros become a loop in an eBPF program.
        let mapped = (0xffff_u128 << 32) | u32::from_be_bytes(o) as u128;
        Self {
            octets: mapped.to_be_bytes(),
        }
    }

    /// From the kernel's `__be32`: the bytes lie in memory as on the wire.
    #[inline(always)]
    pub const fn from_be32(ip: u32) -> Self {
        Self::v4(ip.to_ne_bytes())
    }

    /// From the kernel's `__be32[4]`.
    #[inline(always)]
    pub const fn from_be32x4(ip: [u32; 4]) -> Self {
        let (a, b, c, d) = (
            ip[0].to_ne_bytes(),
            ip[1].to_ne_bytes(),
            ip[2].to_ne_bytes(),
            ip[3].to_ne_bytes(),
        );
        Self {
            octets: [
                a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2],
                d[3],
            ],
        }
    }

    /// Whether this is an IPv4 address, native or mapped.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let o = &self.octets;
        word(o, 0) == 0 && word(o, 4) == 0 && word(o, 8) == 0x0000_ffff
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        let o = &self.octets;
        if self.is_v4() {
            o[12] == 127
        } else {
            word(o, 0) == 0 && word(o, 4) == 0 && word(o, 8) == 0 && word(o, 12) == 1
        }
    }

    /// `0.0.0.0` or `::`: Linux connects to the host itself.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let o = &self.octets;
        if self.is_v4() {
            word(o, 12) == 0
        } else {
            word(o, 0) == 0 && word(o, 4) == 0 && word(o, 8) == 0 && word(o, 12) == 0
        }
    }

    /// `169.254.0.0/16` or `fe80::/10`: instance metadata, Pod Identity, neighbours.
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        let o = &self.octets;
        if self.is_v4() {
            o[12] == 169 && o[13] == 254
        } else {
            o[0] == 0xfe && o[1] & 0xc0 == 0x80
        }
    }

    /// `224.0.0.0/4` (and the class above it, broadcast included) or `ff00::/8`.
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        let o = &self.octets;
        if self.is_v4() { o[12] >= 224 } else { o[0] == 0xff }
    }

    /// Whether a connection to this address is never captured, whatever the pod.
    #[inline(always)]
    pub const fn is_never_captured(&self) -> bool {
        self.is_loopback() || self.is_unspecified() || self.is_link_local() || self.is_multicast()
    }
}

#[inline(always)]
const fn word(o: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]])
}

#[cfg(any(test, feature = "user"))]
mod user {
    extern crate std;
    use super::Address;
    use std::net::{IpAddr, Ipv6Addr};

    impl From<IpAddr> for Address {
        fn from(ip: IpAddr) -> Self {
            match ip {
                IpAddr::V4(v4) => Self::v4(v4.octets()),
                IpAddr::V6(v6) => Self { octets: v6.octets() },
            }
        }
    }

    impl From<Address> for IpAddr {
        /// IPv4 comes back as IPv4, mapped or not: the maps do not tell the two apart.
        fn from(address: Address) -> Self {
            Ipv6Addr::from(address.octets).to_canonical()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;
    use std::net::IpAddr;

    fn a(s: &str) -> Address {
        s.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn classes_agree_with_the_standard_library() {
        for s in [
            "127.0.0.1",
            "127.255.0.3",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "169.253.0.1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "224.0.0.1",
            "239.1.1.1",
            "ff02::1",
            "10.0.0.1",
            "2001:db8::1",
            "::2",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0.0.0.0",
            "100:0:0:1::",
        ] {
            let ip: IpAddr = s.parse::<IpAddr>().unwrap().to_canonical();
            let link_local = match ip {
                IpAddr::V4(v4) => v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            assert_eq!(a(s).is_loopback(), ip.is_loopback(), "{s}");
            assert_eq!(a(s).is_unspecified(), ip.is_unspecified(), "{s}");
            assert_eq!(a(s).is_link_local(), link_local, "{s}");
            assert_eq!(a(s).is_multicast(), ip.is_multicast(), "{s}");
            assert_eq!(IpAddr::from(a(s)), ip, "{s}");
        }
    }

    #[test]
    fn kernel_words_keep_wire_order() {
        let v4 = u32::from_ne_bytes([10, 1, 2, 3]);
        assert_eq!(Address::from_be32(v4), a("10.1.2.3"));
        let v6 = [0x2001_0db8_u32, 0, 0, 7].map(u32::to_be);
        assert_eq!(Address::from_be32x4(v6), a("2001:db8::7"));
    }
}
