use super::pick;

#[test]
fn draws_cover_every_index_evenly() {
    assert_eq!(pick(7, 0), None);
    assert_eq!(pick(u64::MAX, 1), Some(0));
    assert_eq!(
        (pick(0, 3), pick(u64::MAX / 2, 3), pick(u64::MAX, 3)),
        (Some(0), Some(1), Some(2))
    );
    let mut hits = [0_u32; 5];
    for step in 0..1000 {
        hits[pick(u64::MAX / 1000 * step, 5).unwrap()] += 1;
    }
    assert!(hits.iter().all(|hits| (190..=210).contains(hits)), "{hits:?}");
}
