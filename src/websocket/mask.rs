//! The mask that clients put over their payloads: four bytes, over and over.

/// Takes the mask `key` off `bytes`, the first of which is the frame's byte `at`; or puts it on, which is the same.
pub fn unmask(bytes: &mut [u8], key: [u8; 4], at: usize) {
    let key: [u8; 4] = std::array::from_fn(|i| key[(at + i) % 4]);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    // Eight bytes at a time; the compiler makes wide registers of it.
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (i, byte) in rest.iter_mut().enumerate() {
        *byte ^= key[i % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_equals_the_naive_one_cut_anywhere(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            key in any::<[u8; 4]>(),
            cut in 0usize..200,
        ) {
            let naive: Vec<u8> = bytes.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            let mut unmasked = bytes;
            let cut = cut.min(unmasked.len());
            let (first, second) = unmasked.split_at_mut(cut);
            unmask(first, key, 0);
            unmask(second, key, cut);
            prop_assert_eq!(unmasked, naive);
        }
    }
}
