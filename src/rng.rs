//! Random streams keyed by what they are for, the same on every machine and in every release.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::ids::{ReplicaName, Seed, WorkerNumber};

/// One independent stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of one worker of one replica.
    #[must_use]
    pub fn worker(seed: Seed, replica: &ReplicaName, worker: WorkerNumber) -> Self {
        Self::keyed(seed, replica, 1 + u64::from(worker.0))
    }

    /// The stream for the choices of a replica as a whole.
    #[must_use]
    pub fn replica(seed: Seed, replica: &ReplicaName) -> Self {
        Self::keyed(seed, replica, 0)
    }

    fn keyed(seed: Seed, replica: &ReplicaName, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.0.to_le_bytes());
        key[8..16].copy_from_slice(&fnv1a(replica.as_str().as_bytes()).to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(stream);
        Self(rng)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: unbiased enough for a workload, and no division.
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Whether an event of probability `one in n` happens.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Mixes one number into another: `SplitMix64`'s finisher, a bijection of their sum.
#[must_use]
pub fn mix(state: u64, value: u64) -> u64 {
    let mut z = state.wrapping_add(value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(seed: u64, replica: &str, worker: u32) -> Stream {
        Stream::worker(Seed(seed), &ReplicaName::new(replica).unwrap(), WorkerNumber(worker))
    }

    #[test]
    fn streams_never_change_between_releases() {
        let mut golden = stream(42, "a", 0);
        let first: Vec<u64> = (0..3).map(|_| golden.bits()).collect();
        assert_eq!(
            first,
            [11_331_543_326_234_782_315, 3_677_184_529_650_098_523, 16_025_882_372_342_591_873]
        );
        assert_eq!(mix(1, 2), 2_092_789_425_003_139_053);
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let mut seen = std::collections::HashSet::new();
        for (seed, replica, worker) in
            [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1), (1, "a", 2)]
        {
            assert!(seen.insert(stream(seed, replica, worker).bits()));
        }
    }

    #[test]
    fn below_stays_below() {
        let mut rng = stream(7, "x", 0);
        assert!((0..10_000).all(|_| rng.below(10) < 10));
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }
}
