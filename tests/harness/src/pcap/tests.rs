use super::*;

fn frame(ports: (u16, u16), sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(ports.0.to_be_bytes());
    tcp.extend(ports.1.to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0, 0, 0, 0, 5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    tcp.extend(data);
    let mut ip = vec![0x45, 0];
    ip.extend(u16::try_from(20 + tcp.len()).expect("short").to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, TCP, 0, 0, 10, 77, 1, 10, 10, 77, 2, 11]);
    let mut out = vec![0; 12];
    out.extend([0x08, 0x00]);
    out.extend(ip);
    out.extend(tcp);
    out
}

fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend([0; 16]);
    out.extend(1_u32.to_ne_bytes());
    for frame in frames {
        let length = u32::try_from(frame.len()).expect("short").to_ne_bytes();
        out.extend([0; 8]);
        out.extend(length);
        out.extend(length);
        out.extend(frame);
    }
    out
}

fn trace(frames: &[Vec<u8>]) -> Trace {
    Trace::parse(&capture(frames)).expect("a capture")
}

#[test]
fn records_over_several_segments_out_of_order_are_tls() {
    let record = [23, 3, 3, 0, 6, 1, 2, 3, 4, 5, 6];
    let seen = trace(&[
        frame((40_000, 15_008), 99, SYN, &[]),
        frame((40_000, 15_008), 104, 0, &record[4..]),
        frame((40_000, 15_008), 100, 0, &record[..4]),
        frame((40_000, 15_008), 100, 0, &record[..4]),
    ])
    .tls_only(15_008)
    .expect("TLS");
    assert_eq!(
        seen,
        TlsSeen {
            streams: 1,
            records: 1,
            application_data: 1,
            bytes: 11
        }
    );
}

#[test]
fn plaintext_is_found_on_any_port() {
    let elsewhere = trace(&[frame((40_000, 5_000), 100, 0, b"GET /hello")]);
    assert!(elsewhere.tls_only(15_008).is_err());
    let inside = trace(&[frame((40_000, 15_008), 100, 0, b"PRI * HTTP/2.0")]);
    assert!(inside.tls_only(15_008).is_err());
}

#[test]
fn a_gap_is_no_proof() {
    let trace = trace(&[
        frame((40_000, 15_008), 99, SYN, &[]),
        frame((40_000, 15_008), 105, 0, &[23, 3, 3, 0, 1, 0]),
    ]);
    assert!(trace.tls_only(15_008).is_err());
}

#[test]
fn a_marker_is_found_across_segments() {
    let trace = trace(&[
        frame((40_000, 5_000), 99, SYN, &[]),
        frame((40_000, 5_000), 100, 0, b"one mar"),
        frame((40_000, 5_000), 107, 0, b"ker two"),
    ]);
    assert!(trace.contains(b"marker"));
    assert!(!trace.contains(b"other"));
}

#[test]
fn a_cut_packet_is_refused() {
    let mut file = capture(&[frame((1, 2), 1, 0, b"x")]);
    file[24 + 12] += 1;
    assert!(Trace::parse(&file).is_err());
}

#[test]
fn a_second_connection_on_the_same_ports_is_looked_at_too() {
    let trace = trace(&[
        frame((40_000, 15_008), 99, SYN, &[]),
        frame((40_000, 15_008), 100, 0, &[23, 3, 3, 0, 1, 0]),
        frame((40_000, 15_008), 5_000, SYN, &[]),
        frame((40_000, 15_008), 5_001, 0, b"GET /hello"),
    ]);
    assert_eq!(trace.streams().count(), 2);
    assert!(trace.tls_only(15_008).is_err());
}
