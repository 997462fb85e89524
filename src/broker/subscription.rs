//! One `SUB` of one connection, and the client's name for it.

use std::fmt;

/// A subscription, in its owner's table. The index knows it by slot and generation only.
#[derive(Debug)]
pub struct Subscription {
    /// Slot of the connection.
    pub conn: u32,
    /// Tells it from earlier ones in the same slot.
    pub generation: u32,
    /// The client's name for it.
    pub sid: Sid,
    /// The pattern.
    pub subject: Box<[u8]>,
    /// The queue group.
    pub queue: Option<Box<[u8]>>,
    /// Messages delivered since `SUB`.
    pub delivered: u64,
    /// Deliveries after which it ends; 0 for none.
    pub delivered_max: u64,
}

impl Subscription {
    /// Whether it has got all it asked for.
    #[inline]
    pub fn is_exhausted(&self) -> bool {
        self.delivered_max != 0 && self.delivered >= self.delivered_max
    }
}

/// Longest sid that needs no memory of its own. Clients count from one.
const INLINE_MAX: usize = 14;

/// A client's name for a subscription: any token, usually a number. 16 bytes.
#[derive(Clone)]
pub enum Sid {
    /// Up to `INLINE_MAX` bytes.
    Inline {
        /// Bytes in use.
        len: u8,
        /// The token and what is behind it.
        bytes: [u8; INLINE_MAX],
    },
    /// Longer ones. Doubly boxed so that the frequent case stays at 16 bytes.
    Heap(Box<Box<[u8]>>),
}

impl Sid {
    /// A copy of the token.
    pub fn new(token: &[u8]) -> Sid {
        if token.len() > INLINE_MAX {
            return Sid::Heap(Box::new(token.into()));
        }
        let mut bytes = [0; INLINE_MAX];
        bytes[..token.len()].copy_from_slice(token);
        Sid::Inline { len: token.len() as u8, bytes }
    }

    /// The token.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Sid::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Sid::Heap(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_is_the_token_whatever_its_length() {
        for token in ["1", "", "12345678901234", "123456789012345", "a-much-longer-name-of-a-subscription"] {
            assert_eq!(Sid::new(token.as_bytes()).as_bytes(), token.as_bytes());
        }
    }

    #[test]
    fn sizes_stay_within_the_memory_budget_of_a_subscription() {
        assert_eq!(size_of::<Sid>(), 16);
        assert!(size_of::<Subscription>() <= 72);
    }
}
