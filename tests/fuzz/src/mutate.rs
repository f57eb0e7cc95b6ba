//! Changes inputs at random, the same way for the same seed.

use crate::MAX_INPUT;

/// A generator of random numbers (SplitMix64): small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of one seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let number = usize::try_from(self.number() >> 32).unwrap_or_default();
        number.checked_rem(bound).unwrap_or_default()
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }

    /// A place in `bytes`, and how many bytes from there, at least one where there are any.
    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len());
        let most = (bytes.len() - start).min(1 << self.below(9));
        start..start + (1 + self.below(most)).min(bytes.len() - start)
    }
}

/// Bytes at the borders of what parsers tell apart.
const BORDERS: &[u8] = b"\0\x01\t\n\r \"#%&'*,-./0:;<=>@AZ[\\]az{|}~\x7f\x80\xc3\xe2\xff";

/// One to eight changes of one of `inputs`, with pieces of the others and of `words`.
#[must_use]
pub fn mutate(random: &mut Random, inputs: &[&[u8]], words: &[&str]) -> Vec<u8> {
    let mut bytes = random.of(inputs).map(|input| input.to_vec()).unwrap_or_default();
    for _ in 0..=random.below(8) {
        change(random, &mut bytes, inputs, words);
    }
    bytes.truncate(MAX_INPUT);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, inputs: &[&[u8]], words: &[&str]) {
    let at = random.below(bytes.len() + 1);
    match random.below(10) {
        0 => {
            let bit = 1 << random.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bit;
            }
        }
        1 => {
            let border = random.of(BORDERS).copied().unwrap_or_default();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = border;
            }
        }
        2 => {
            let border = random.of(BORDERS).copied().unwrap_or_default();
            bytes.insert(at, border);
        }
        3 => {
            let range = random.range(bytes);
            bytes.drain(range);
        }
        4 => {
            let piece = bytes.get(random.range(bytes)).unwrap_or_default().to_vec();
            insert(bytes, at, &piece);
        }
        // Many times the same: nesting, long names, full lists.
        5 => {
            let piece = bytes.get(random.range(bytes)).unwrap_or_default().to_vec();
            insert(bytes, at, &piece.repeat(1 + random.below(64)));
        }
        6 => {
            let other = random.of(inputs).copied().unwrap_or_default();
            let piece = other.get(random.range(other)).unwrap_or_default();
            insert(bytes, at, piece);
        }
        7 => bytes.truncate(at),
        8 => {
            let number = random.number() >> (1 + random.below(63));
            insert(bytes, at, number.to_string().as_bytes());
        }
        _ => {
            let word = random.of(words).copied().unwrap_or_default();
            insert(bytes, at, word.as_bytes());
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if bytes.len() + piece.len() <= MAX_INPUT {
        bytes.splice(at..at, piece.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_makes_the_same_mutations_and_another_makes_others() {
        let run = |seed| {
            let mut random = Random::new(seed);
            (0..200)
                .map(|_| mutate(&mut random, &[b"hello", b""], &["word"]))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn nothing_to_start_from_is_no_problem_and_the_bound_holds() {
        let mut random = Random::new(7);
        let long = vec![b'x'; MAX_INPUT];
        for inputs in [&[][..], &[&b""[..]], &[&long[..]]] {
            for _ in 0..1000 {
                assert!(mutate(&mut random, inputs, &[]).len() <= MAX_INPUT);
            }
        }
    }
}
