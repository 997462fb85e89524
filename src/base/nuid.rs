//! Ids as events and advisories have them: as long and of the same letters as those of the reference.

/// 22 letters and digits at random.
pub fn nuid(random: &mut fastrand::Rng) -> String {
    std::iter::repeat_with(|| random.alphanumeric()).take(22).collect()
}
