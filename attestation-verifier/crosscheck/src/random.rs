//! Random numbers that a seed decides (SplitMix64): the same seed gives the same mutants on every machine and with any number
//! of threads. Keys and ECDSA nonces are not among them, so that a mutant's signatures differ from run to run and what was done
//! to it does not.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of one mutant.
    pub fn new(seed: u64, index: u64) -> Random {
        let mut random = Random(seed ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random
    }

    /// 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A byte, more often than not one that is somebody's border.
    pub fn byte(&mut self) -> u8 {
        match self.below(4) {
            0 => 0,
            1 => *self.pick(&[1, 2, 0x7f, 0x80, 0xfe, 0xff]),
            _ => self.next() as u8,
        }
    }

    /// A number, more often than not one that is somebody's border.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => 1 << self.below(64),
            1 => *self.pick(&[0, 1, 2, 3, 4, 5, 6, 255, 256, 0x7fff_ffff, u64::MAX]),
            2 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    /// Changes some bytes, at least one of them.
    pub fn scribble(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.below(4) {
            0 => {
                let at = self.below(bytes.len());
                bytes[at] ^= 1 << self.below(8);
            }
            1 => {
                let at = self.below(bytes.len());
                bytes[at] = bytes[at].wrapping_add(self.below(255) as u8 + 1);
            }
            2 => {
                let value = self.byte();
                bytes.fill(value);
            }
            _ => {
                for byte in bytes {
                    *byte = self.next() as u8;
                }
            }
        }
    }

    /// Damages a file: bits, bytes, a range copied or exchanged within it or from another file, its end. Says how.
    pub fn damage(&mut self, bytes: &mut Vec<u8>, other: &[u8]) -> &'static str {
        let length = bytes.len().max(1);
        if bytes.is_empty() {
            bytes.push(self.byte());
            return "a byte in an empty file";
        }
        match self.below(10) {
            0..4 => {
                for _ in 0..=self.below(4) {
                    let at = self.below(length);
                    bytes[at] ^= 1 << self.below(8);
                }
                "bits"
            }
            4 => {
                let at = self.below(length);
                bytes[at] = self.byte();
                "a byte"
            }
            5 => {
                let range = self.range(length, 64);
                self.scribble(&mut bytes[range]);
                "a range"
            }
            6 => {
                let range = self.range(length.min(other.len().max(1)), 128);
                if let Some(from) = other.get(range.clone()) {
                    bytes[range].copy_from_slice(from);
                }
                "a range of another"
            }
            7 => {
                let from = self.range(length, 64);
                let at = self.below(length - from.len() + 1);
                bytes.copy_within(from, at);
                "a range copied"
            }
            8 => {
                let at = self.below(length);
                bytes.truncate(at);
                "cut off"
            }
            _ => {
                for _ in 0..=self.below(80) {
                    bytes.push(self.byte());
                }
                "bytes at the end"
            }
        }
    }

    fn range(&mut self, length: usize, most: usize) -> std::ops::Range<usize> {
        let size = 1 + self.below(most.min(length));
        let from = self.below(length - size + 1);
        from..from + size
    }
}
