use super::{less_busy, pick};
use std::cell::Cell;

/// Numbers that look random and are the same each time (splitmix64).
fn draws(state: &mut u64) -> [u64; 2] {
    let mut next = || {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = *state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    };
    [next(), next()]
}

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

#[test]
fn of_two_different_ones_the_less_busy_is_taken_and_the_first_of_equals() {
    let loads = [5_u64, 1, 1];
    let load = |index: &usize| loads[*index];
    let go = |draws| *less_busy(&[0, 1, 2], draws, load).unwrap();
    // The second draw is among the others: 0 means the next one but the first.
    assert_eq!(go([0, 0]), 1);
    assert_eq!(go([0, u64::MAX]), 2);
    assert_eq!(go([u64::MAX / 2, 0]), 1, "the busier other is not taken");
    assert_eq!(go([u64::MAX / 2, u64::MAX]), 1, "the first of two equals");
    assert_eq!(go([u64::MAX, u64::MAX]), 2, "the first of two equals");
    assert_eq!(less_busy(&[0_usize], [u64::MAX, u64::MAX], load), Some(&0));
    assert_eq!(less_busy::<usize>(&[], [0, 0], load), None);
}

#[test]
fn long_lived_connections_spread_far_more_evenly_than_by_chance() {
    const ENDPOINTS: usize = 20;
    const EACH: u64 = 100;
    let counts: Vec<Cell<u64>> = vec![Cell::new(0); ENDPOINTS];
    let all: Vec<usize> = (0..ENDPOINTS).collect();
    let mut state = 1;
    for _ in 0..ENDPOINTS as u64 * EACH {
        let chosen = *less_busy(&all, draws(&mut state), |index| counts[*index].get()).unwrap();
        counts[chosen].set(counts[chosen].get() + 1);
    }
    // Drawn at random the fullest of 20 would hold about 120; the bound of two choices is a handful above the mean.
    let (least, most) = (
        counts.iter().min().unwrap().get(),
        counts.iter().max().unwrap().get(),
    );
    assert!(least >= EACH - 6 && most <= EACH + 4, "{least}..{most}");
}

#[test]
fn a_busy_endpoint_gets_nothing_until_the_others_have_caught_up() {
    let counts: Vec<Cell<u64>> = vec![Cell::new(1000), Cell::new(0), Cell::new(0)];
    let mut state = 2;
    for _ in 0..500 {
        let chosen = *less_busy(&[0_usize, 1, 2], draws(&mut state), |index| counts[*index].get()).unwrap();
        assert_ne!(chosen, 0);
        counts[chosen].set(counts[chosen].get() + 1);
    }
}
