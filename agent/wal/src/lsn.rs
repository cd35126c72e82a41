//! A position in the write-ahead log. Does not know its timeline.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A byte position in the WAL, as PostgreSQL's `pg_lsn`: printed and parsed as `16/B374D848`.
///
/// Serialized as that text; Patroni's JSON carries the plain integer, which is [`Lsn::get`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// The position that PostgreSQL calls invalid (`0/0`): nothing was ever written or received.
    pub const INVALID: Lsn = Lsn(0);

    /// The position `bytes` from the start of the log.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Lsn(bytes)
    }

    /// Bytes from the start of the log.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Bytes that `self` is behind `other`; 0 when it is level or ahead.
    #[must_use]
    pub const fn behind(self, other: Lsn) -> u64 {
        other.0.saturating_sub(self.0)
    }

    /// The position `bytes` later, limited to the end of the number range.
    #[must_use]
    pub const fn advanced(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not a `pg_lsn`: two hexadecimal numbers of at most 32 bits with a slash between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLsn;

impl fmt::Display for BadLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not an LSN: two hexadecimal numbers of at most 8 digits with a slash between, such as 0/3000148",
        )
    }
}

impl core::error::Error for BadLsn {}

impl FromStr for Lsn {
    type Err = BadLsn;

    fn from_str(text: &str) -> Result<Self, BadLsn> {
        let (high, low) = text.trim().split_once('/').ok_or(BadLsn)?;
        let half = |digits: &str| {
            // `from_str_radix` would take a sign, PostgreSQL does not.
            let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            if hexadecimal { u32::from_str_radix(digits, 16).map_err(|_| BadLsn) } else { Err(BadLsn) }
        };
        Ok(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(bytes: u64) {
            prop_assert_eq!(Lsn::new(bytes).to_string().parse(), Ok(Lsn::new(bytes)));
        }
    }

    #[test]
    fn text_that_postgres_would_refuse_is_refused() {
        for bad in
            ["", "/", "0", "0/", "/0", "x/0", "0/x", "123456789/0", "0/123456789", "-1/0", "+1/0", "0/0/0"]
        {
            assert_eq!(bad.parse::<Lsn>(), Err(BadLsn), "{bad}");
        }
    }

    #[test]
    fn behind_is_never_negative() {
        assert_eq!(Lsn::new(10).behind(Lsn::new(30)), 20);
        assert_eq!(Lsn::new(30).behind(Lsn::new(10)), 0);
    }
}
