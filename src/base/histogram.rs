//! How many values there were up to each of a row of bounds: what latencies and sizes are told as.
//!
//! Fixed in size, so that a worker counts without allocating and publishes it as plain numbers.

/// Upper bounds of the classes of times, in microseconds; what is longer is in a class of its own.
pub const LATENCY_BOUNDS_US: [u64; 22] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// Upper bounds of the classes of sizes: the powers of two from 512 bytes to 1 GiB. There are as many as of times.
pub const SIZE_BOUNDS_BYTES: [u64; LATENCY_BOUNDS_US.len()] = {
    let mut bounds = [0; LATENCY_BOUNDS_US.len()];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = 512 << at;
        at += 1;
    }
    bounds
};

/// Classes of a histogram.
pub const CLASSES: usize = LATENCY_BOUNDS_US.len() + 1;

/// Times or sizes, by classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many in each class.
    pub classes: [u64; CLASSES],
    /// All of them together: microseconds, or bytes.
    pub sum: u64,
}

impl Histogram {
    /// Adds a time, so many times over.
    #[inline]
    pub fn record(&mut self, took_us: u64, count: u64) {
        self.record_in(class_of(took_us), took_us, count);
    }

    /// The same where the class is known.
    #[inline]
    pub fn record_in(&mut self, class: usize, took_us: u64, count: u64) {
        self.classes[class] += count;
        self.sum += took_us * count;
    }

    /// Adds a size.
    pub fn record_size(&mut self, bytes: u64) {
        self.classes[SIZE_BOUNDS_BYTES.partition_point(|bound| bytes > *bound)] += 1;
        self.sum += bytes;
    }

    /// Adds what another one has.
    pub fn add(&mut self, other: &Histogram) {
        for (class, count) in self.classes.iter_mut().zip(other.classes) {
            *class += count;
        }
        self.sum += other.sum;
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// A bound that so large a share of the values does not pass; `None` if there is no value, or if it is beyond the last bound.
    pub fn bound_of(&self, share: f64, bounds: &[u64; CLASSES - 1]) -> Option<u64> {
        let wanted = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut counted = 0;
        let classes = self.classes.iter().zip(bounds);
        classes.map(|(count, bound)| (count, *bound)).find_map(|(count, bound)| {
            counted += count;
            (counted >= wanted).then_some(bound)
        })
    }
}

/// Which class a time is in.
#[inline]
pub fn class_of(took_us: u64) -> usize {
    LATENCY_BOUNDS_US.iter().take_while(|bound_us| took_us > **bound_us).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_class_whose_bound_it_does_not_pass() {
        let mut histogram = Histogram::default();
        for (took_us, class) in
            [(0, 0), (1, 0), (2, 1), (3, 2), (10_000_000, 21), (10_000_001, 22), (60_000_000, 22)]
        {
            let before = histogram.classes[class];
            histogram.record(took_us, 2);
            assert_eq!(histogram.classes[class], before + 2, "{took_us}");
        }
        assert_eq!(histogram.count(), 14);
        let mut sum = Histogram::default();
        sum.record(5, 1);
        sum.add(&histogram);
        assert_eq!((sum.count(), sum.classes[2]), (15, 3));
    }

    #[test]
    fn a_size_is_in_the_first_class_whose_bound_it_does_not_pass() {
        let mut histogram = Histogram::default();
        for (bytes, class) in [(0, 0), (512, 0), (513, 1), (1 << 30, 21), ((1 << 30) + 1, 22)] {
            let before = histogram.classes[class];
            histogram.record_size(bytes);
            assert_eq!(histogram.classes[class], before + 1, "{bytes}");
        }
        assert_eq!(histogram.sum, 512 + 513 + (2 << 30) + 1);
    }

    #[test]
    fn a_share_of_the_values_is_within_a_bound() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.bound_of(0.5, &LATENCY_BOUNDS_US), None);
        histogram.record(3, 98);
        histogram.record(700, 1);
        histogram.record(20_000_000, 1);
        let bound = |share| histogram.bound_of(share, &LATENCY_BOUNDS_US);
        assert_eq!((bound(0.5), bound(0.98), bound(0.99), bound(1.0)), (Some(5), Some(5), Some(1_000), None));
    }
}
