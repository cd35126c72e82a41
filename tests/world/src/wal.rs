//! The write-ahead log as a short list of records: what is written, how far, and where timelines branched off. Holds no
//! bytes: a position is a number of records.

use std::fmt;

use outrider_wal::{Lsn, TimelineHistory, TimelineId};

const BITS: u32 = 4;
const RECORDS_MAX: u32 = 15;
const COMMITS_MAX: u8 = 4;
const BIRTHS_MAX: u8 = 9;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A client's transaction, by number from 0. No two are the same, wherever they are written.
    Commit(u8),
    /// The end of a recovery, by number from 0: a timeline is born. No two are the same.
    Birth(u8),
    /// The checkpoint of a clean stop.
    Shutdown,
}

impl Record {
    fn code(self) -> u64 {
        match self {
            Record::Commit(number) => {
                assert!(number < COMMITS_MAX, "at most {COMMITS_MAX} commits fit");
                1 + u64::from(number)
            }
            Record::Birth(number) => {
                assert!(number < BIRTHS_MAX, "at most {BIRTHS_MAX} births fit");
                1 + u64::from(COMMITS_MAX + number)
            }
            Record::Shutdown => 1 + u64::from(COMMITS_MAX + BIRTHS_MAX),
        }
    }

    fn from_code(code: u64) -> Self {
        let code = u8::try_from(code).expect("four bits") - 1;
        match code.checked_sub(COMMITS_MAX) {
            None => Record::Commit(code),
            Some(number) if number < BIRTHS_MAX => Record::Birth(number),
            Some(_) => Record::Shutdown,
        }
    }
}

/// The log of one node, oldest record first, four bits a record.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Wal(u64);

impl Wal {
    /// Its position: how many records it has.
    #[must_use]
    pub fn position(self) -> u8 {
        let used = u64::BITS - self.0.leading_zeros();
        u8::try_from(used.div_ceil(BITS)).expect("at most 16")
    }

    /// The same as a number of bytes.
    #[must_use]
    pub fn lsn(self) -> Lsn {
        Lsn::new(u64::from(self.position()))
    }

    /// Its records, oldest first.
    pub fn records(self) -> impl Iterator<Item = Record> {
        (0..u32::from(self.position())).map(move |place| Record::from_code(self.0 >> (BITS * place) & 0xF))
    }

    /// Writes one more.
    pub fn push(&mut self, record: Record) {
        let end = u32::from(self.position());
        assert!(end < RECORDS_MAX, "at most {RECORDS_MAX} records fit");
        self.0 |= record.code() << (BITS * end);
    }

    /// Whether `other` begins with all that is here.
    #[must_use]
    pub fn is_prefix_of(self, other: Wal) -> bool {
        let mask = (1_u64 << (BITS * u32::from(self.position()))) - 1;
        other.0 & mask == self.0
    }

    /// Takes over the next record of `other`, of which this is a prefix; false when there is none.
    pub fn receive_from(&mut self, other: Wal) -> bool {
        let next = other.records().nth(usize::from(self.position()));
        next.map(|record| self.push(record)).is_some()
    }

    /// The number of the timeline it ends on.
    #[must_use]
    pub fn timeline(self) -> TimelineId {
        let births = self.records().filter(|record| matches!(record, Record::Birth(_))).count();
        TimelineId::new(1 + u32::try_from(births).expect("few"))
    }

    /// The last birth in it: which timeline it really is, whatever its number. 0 before the first.
    #[must_use]
    pub fn newest_birth(self) -> u8 {
        let births = self.records().filter_map(|record| match record {
            Record::Birth(number) => Some(number + 1),
            Record::Commit(_) | Record::Shutdown => None,
        });
        births.max().unwrap_or_default()
    }

    /// The commits in it, one bit each.
    #[must_use]
    pub fn commits(self) -> u8 {
        self.records().fold(0, |commits, record| match record {
            Record::Commit(number) => commits | 1 << number,
            Record::Birth(_) | Record::Shutdown => commits,
        })
    }

    /// Where its timelines were left.
    #[must_use]
    pub fn branches(self) -> Branches {
        let mut branches = Branches::default();
        for (place, record) in self.records().enumerate() {
            if let Record::Birth(_) = record {
                branches.push(u8::try_from(place).expect("few"));
            }
        }
        branches
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.records()).finish()
    }
}

/// The positions at which the timelines 1, 2 ... were left: a history file.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Branches(u32);

impl Branches {
    fn push(&mut self, position: u8) {
        let used = u32::BITS - self.0.leading_zeros();
        // One is added so that position 0 can be told from nothing.
        self.0 |= (u32::from(position) + 1) << (used.div_ceil(BITS) * BITS);
    }

    fn ends(self) -> impl Iterator<Item = u32> {
        (0..u32::BITS / BITS).map(move |place| self.0 >> (BITS * place) & 0xF).take_while(|end| *end > 0)
    }

    /// As the decision core reads it.
    #[must_use]
    pub fn history(self) -> TimelineHistory {
        if self.0 == 0 {
            return TimelineHistory::default();
        }
        let line = |(index, end): (usize, u32)| format!("{}\t0/{:X}\tpromoted\n", index + 1, end - 1);
        let text: String = self.ends().enumerate().map(line).collect();
        text.parse().expect("its timelines ascend")
    }
}

impl fmt::Debug for Branches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ends().map(|end| end - 1)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wal(records: &[Record]) -> Wal {
        let mut wal = Wal::default();
        records.iter().for_each(|record| wal.push(*record));
        wal
    }

    #[test]
    fn what_is_written_is_read_back() {
        let records =
            [Record::Commit(0), Record::Commit(3), Record::Birth(0), Record::Birth(8), Record::Shutdown];
        assert_eq!(wal(&records).records().collect::<Vec<_>>(), records);
        assert_eq!((wal(&records).position(), wal(&records).commits()), (5, 0b1001));
        assert_eq!((wal(&records).timeline(), wal(&records).newest_birth()), (TimelineId::new(3), 9));
    }

    #[test]
    fn a_standby_receives_only_what_follows() {
        let primary = wal(&[Record::Commit(0), Record::Commit(1)]);
        let mut standby = wal(&[Record::Commit(0)]);
        assert!(standby.is_prefix_of(primary) && !primary.is_prefix_of(standby));
        assert!(standby.receive_from(primary));
        assert!(!standby.receive_from(primary));
        assert_eq!(standby, primary);
        assert!(!wal(&[Record::Commit(1)]).is_prefix_of(primary));
    }

    #[test]
    fn branches_are_the_positions_of_the_births() {
        let branches = wal(&[Record::Birth(0), Record::Commit(0), Record::Birth(1)]).branches();
        let ends: Vec<u64> = branches.history().switches().iter().map(|switch| switch.end.get()).collect();
        assert_eq!(ends, [0, 2]);
    }
}
