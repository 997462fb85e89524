//! Whole numbers of any length, as counters have them: read, added and written in decimal.

use std::fmt;

/// A whole number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decimal {
    negative: bool,
    /// From the last to the first, without zeros in front; none for zero.
    digits: Vec<u8>,
}

impl Decimal {
    /// Reads a number: a sign perhaps, then digits and nothing else.
    pub fn parse(text: &[u8]) -> Option<Decimal> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Some(Decimal::new(negative, digits.iter().rev().map(|digit| digit - b'0').collect()))
    }

    /// The sum of two numbers.
    pub fn plus(&self, other: &Decimal) -> Decimal {
        if self.negative == other.negative {
            return Decimal::new(self.negative, sum(&self.digits, &other.digits));
        }
        if is_less(&self.digits, &other.digits) {
            Decimal::new(other.negative, difference(&other.digits, &self.digits))
        } else {
            Decimal::new(self.negative, difference(&self.digits, &other.digits))
        }
    }

    /// What has to be added to `other` to come to this.
    pub fn minus(&self, other: &Decimal) -> Decimal {
        self.plus(&Decimal::new(!other.negative, other.digits.clone()))
    }

    fn new(negative: bool, mut digits: Vec<u8>) -> Decimal {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Decimal { negative: negative && !digits.is_empty(), digits }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: String = self.digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect();
        f.pad_integral(!self.negative, "", if digits.is_empty() { "0" } else { &digits })
    }
}

fn is_less(a: &[u8], b: &[u8]) -> bool {
    a.len() < b.len() || a.len() == b.len() && a.iter().rev().lt(b.iter().rev())
}

fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let mut digits: Vec<u8> = (0..a.len().max(b.len()))
        .map(|at| {
            let place = a.get(at).unwrap_or(&0) + b.get(at).unwrap_or(&0) + carry;
            carry = place / 10;
            place % 10
        })
        .collect();
    digits.push(carry);
    digits
}

/// `a` is not less than `b`.
fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrowed = 0;
    a.iter()
        .enumerate()
        .map(|(at, digit)| {
            let taken = b.get(at).unwrap_or(&0) + borrowed;
            borrowed = u8::from(*digit < taken);
            digit + 10 * borrowed - taken
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_sign_and_digits_are_a_number() {
        for (text, wanted) in [("+5", "5"), ("-0", "0"), ("007", "7"), ("-12", "-12")] {
            assert_eq!(Decimal::parse(text.as_bytes()).unwrap().to_string(), wanted);
        }
        for text in ["", "+", "1 ", "1.0", "--1", "x", "1_0"] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn sums_are_those_of_integers(a in any::<i64>(), b in any::<i64>()) {
            let number = |value: i128| Decimal::parse(value.to_string().as_bytes()).unwrap();
            let expected = i128::from(a) + i128::from(b);
            prop_assert_eq!(number(a.into()).plus(&number(b.into())), number(expected));
        }
    }
}
