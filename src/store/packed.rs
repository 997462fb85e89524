//! Numbers of a sealed segment in few bits each: groups of 128, every group with its own base and width.
//!
//! What is stored of a message grows slowly (sequences, places, times) or hardly differs (sizes, subjects), so that the
//! distance from the smallest of a group takes 0 to 16 bits where the number takes 64. A number is found without unpacking
//! others. The same bytes stand in the segment's index on disk (`docs/storage.md`).

/// How many numbers share a base. Larger groups cost more bits each, smaller ones more bases; both are measured in
/// a tenth of a byte here.
pub const GROUP: usize = 128;

/// A list of numbers that does not change.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct Packed {
    len: u32,
    groups: Box<[Group]>,
    /// All groups' bits one after the other, each beginning at a byte; at the end 16 bytes more, so that a number is
    /// read with one load wherever it begins.
    bits: Box<[u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Group {
    base: u64,
    start: u32,
    width: u8,
}

const GROUP_BYTES: usize = 13;

impl Packed {
    pub fn new(numbers: impl ExactSizeIterator<Item = u64>) -> Packed {
        let len = numbers.len();
        let mut groups = Vec::with_capacity(len.div_ceil(GROUP));
        let mut bits: Vec<u8> = Vec::new();
        let mut group = [0u64; GROUP];
        let mut numbers = numbers;
        loop {
            let mut count = 0;
            for number in numbers.by_ref().take(GROUP) {
                group[count] = number;
                count += 1;
            }
            let Some(&base) = group[..count].iter().min() else { break };
            let most = group[..count].iter().fold(0, |most, number| most | (number - base));
            let width = 64 - most.leading_zeros();
            let start = bits.len();
            groups.push(Group { base, start: start as u32, width: width as u8 });
            if width > 0 {
                let (mut word, mut filled) = (0u128, 0);
                for number in &group[..count] {
                    word |= u128::from(number - base) << filled;
                    filled += width;
                    while filled >= 32 {
                        bits.extend_from_slice(&(word as u32).to_le_bytes());
                        word >>= 32;
                        filled -= 32;
                    }
                }
                bits.extend_from_slice(&(word as u32).to_le_bytes()[..filled.div_ceil(8) as usize]);
            }
        }
        bits.extend_from_slice(&[0; 16]);
        Packed { len: len as u32, groups: groups.into(), bits: bits.into() }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn get(&self, at: usize) -> u64 {
        debug_assert!(at < self.len());
        let group = &self.groups[at / GROUP];
        if group.width == 0 { group.base } else { self.unpack(group, at % GROUP) }
    }

    fn unpack(&self, group: &Group, at: usize) -> u64 {
        let bit = at * usize::from(group.width);
        let from = group.start as usize + bit / 8;
        let word = u128::from_le_bytes(self.bits[from..from + 16].try_into().expect("16 bytes"));
        // Wrapping: bits that come from a disk may say anything.
        group.base.wrapping_add((word >> (bit % 8)) as u64 & (u64::MAX >> (64 - u32::from(group.width))))
    }

    /// The first place at or after `from` where `number` stands, whole groups skipped where it cannot.
    pub fn find(&self, number: u64, from: usize) -> Option<usize> {
        let mut at = from;
        while at < self.len() {
            let group = &self.groups[at / GROUP];
            let end = (at / GROUP * GROUP + GROUP).min(self.len());
            match group.width {
                0 if group.base == number => return Some(at),
                0 => {}
                width if number < group.base || (number - group.base) >> (width - 1) > 1 => {}
                _ => {
                    if let Some(at) = (at..end).find(|at| self.unpack(group, at % GROUP) == number) {
                        return Some(at);
                    }
                }
            }
            at = end;
        }
        None
    }

    /// The last place at or before `from` where `number` stands.
    pub fn find_back(&self, number: u64, from: usize) -> Option<usize> {
        let mut end = (from + 1).min(self.len());
        while end > 0 {
            let start = (end - 1) / GROUP * GROUP;
            let group = &self.groups[start / GROUP];
            match group.width {
                0 if group.base == number => return Some(end - 1),
                0 => {}
                width if number < group.base || (number - group.base) >> (width - 1) > 1 => {}
                _ => {
                    if let Some(at) = (start..end).rev().find(|at| self.unpack(group, at % GROUP) == number) {
                        return Some(at);
                    }
                }
            }
            end = start;
        }
        None
    }

    /// The first place whose number is not below `number`, in a list that does not decrease.
    pub fn lower_bound(&self, number: u64) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.get(middle) < number { low = middle + 1 } else { high = middle }
        }
        low
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }

    /// No number is greater, though all may be smaller: seen from the groups alone.
    pub fn upper_bound(&self) -> u64 {
        let most = |group: &Group| {
            let spread = if group.width == 0 { 0 } else { u64::MAX >> (64 - u32::from(group.width)) };
            group.base.saturating_add(spread)
        };
        self.groups.iter().map(most).max().unwrap_or(0)
    }

    /// The sum of numbers that are below 2^32.
    pub fn sum(&self) -> u64 {
        let mut sum = 0;
        for (number, group) in self.groups.iter().enumerate() {
            let count = GROUP.min(self.len() - number * GROUP);
            sum += group.base * count as u64;
            if group.width > 0 {
                sum += (0..count).map(|at| self.unpack(group, at) - group.base).sum::<u64>();
            }
        }
        sum
    }

    /// The sum of the numbers at these places, which are in one group.
    pub fn sum_of(&self, places: std::ops::Range<usize>) -> u64 {
        let Some(group) = self.groups.get(places.start / GROUP) else { return 0 };
        if group.width == 0 {
            return group.base.wrapping_mul(places.len() as u64);
        }
        places.fold(0, |sum, at| sum.wrapping_add(self.unpack(group, at % GROUP)))
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&(self.bits.len() as u32).to_le_bytes());
        for group in &self.groups {
            out.extend_from_slice(&group.base.to_le_bytes());
            out.extend_from_slice(&group.start.to_le_bytes());
            out.push(group.width);
        }
        out.extend_from_slice(&self.bits);
    }

    /// Reads what [`write`](Self::write) wrote and goes on behind it; `None` if it is not that.
    pub fn read(bytes: &mut &[u8]) -> Option<Packed> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let len = u32::from_le_bytes(head[..4].try_into().ok()?);
        let bit_bytes = u32::from_le_bytes(head[4..].try_into().ok()?) as usize;
        let group_count = (len as usize).div_ceil(GROUP);
        let (directory, rest) = rest.split_at_checked(group_count.checked_mul(GROUP_BYTES)?)?;
        let (bits, rest) = rest.split_at_checked(bit_bytes)?;
        let mut groups = Vec::with_capacity(group_count);
        for (number, group) in directory.chunks_exact(GROUP_BYTES).enumerate() {
            let group = Group {
                base: u64::from_le_bytes(group[..8].try_into().ok()?),
                start: u32::from_le_bytes(group[8..12].try_into().ok()?),
                width: group[12],
            };
            let count = GROUP.min(len as usize - number * GROUP);
            let end = group.start as usize + (count * usize::from(group.width)).div_ceil(8);
            if group.width > 64 || end + 16 > bits.len() {
                return None;
            }
            groups.push(group);
        }
        *bytes = rest;
        Some(Packed { len, groups: groups.into(), bits: bits.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_is_found_again(numbers in prop::collection::vec((0u32..64, any::<u64>()), 0..400)) {
            let numbers: Vec<u64> = numbers.into_iter().map(|(shift, number)| number >> shift).collect();
            let packed = Packed::new(numbers.iter().copied());
            prop_assert!(packed.iter().eq(numbers.iter().copied()));
            let mut bytes = Vec::new();
            packed.write(&mut bytes);
            let mut rest = &bytes[..];
            prop_assert_eq!(Packed::read(&mut rest), Some(packed.clone()));
            prop_assert!(rest.is_empty());
            for cut in 0..bytes.len() {
                prop_assert_eq!(Packed::read(&mut &bytes[..cut]), None);
            }
        }

        #[test]
        fn searches_agree_with_a_plain_list(numbers in prop::collection::vec(0u64..20, 0..600), from in 0usize..600) {
            let packed = Packed::new(numbers.iter().copied());
            for wanted in 0..21 {
                let forth = (from..numbers.len()).find(|&at| numbers[at] == wanted);
                prop_assert_eq!(packed.find(wanted, from), forth);
                let back = (0..(from + 1).min(numbers.len())).rev().find(|&at| numbers[at] == wanted);
                prop_assert_eq!(packed.find_back(wanted, from), back);
            }
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            let packed = Packed::new(sorted.iter().copied());
            prop_assert_eq!(packed.lower_bound(from as u64), sorted.partition_point(|&number| number < from as u64));
        }
    }
}
