//! PostgreSQL's page checksums: whether a page of a relation is what was written. Reads no file.

use outrider_wal::Lsn;

/// PostgreSQL, storage/checksum_impl.h: as many sums run side by side.
const SUMS: usize = 32;
/// The prime of FNV-1a.
const PRIME: u32 = 16_777_619;
/// Where each sum begins (checksum_impl.h, checksumBaseOffsets).
const OFFSETS: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];
/// Where `pd_checksum` and `pd_upper` are (storage/bufpage.h, PageHeaderData).
const CHECKSUM: usize = 8;
const UPPER: usize = 14;

/// Whether a page can be kept: its checksum is right, or it is new, or it was written since `start`. Then replay
/// writes it anew from a full image, and it may be torn here (PostgreSQL, basebackup.c).
pub fn is_sound(page: &[u8], block: u32, start: Lsn) -> bool {
    if page[UPPER..UPPER + 2] == [0, 0] {
        return true;
    }
    let half =
        |at: usize| u64::from(u32::from_ne_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]));
    if Lsn::new(half(0) << 32 | half(4)) >= start {
        return true;
    }
    checksum(page, block) == u16::from_ne_bytes([page[CHECKSUM], page[CHECKSUM + 1]])
}

/// `pg_checksum_page`: of the page as if `pd_checksum` were 0.
fn checksum(page: &[u8], block: u32) -> u16 {
    let mut sums = OFFSETS;
    let (rows, _) = page.as_chunks::<{ 4 * SUMS }>();
    for (number, row) in rows.iter().enumerate() {
        let mut words = [0u32; SUMS];
        let (chunks, _) = row.as_chunks::<4>();
        for (word, bytes) in words.iter_mut().zip(chunks) {
            *word = u32::from_ne_bytes(*bytes);
        }
        if number == 0 {
            // pd_checksum is the first half of the third word, in memory.
            let kept = chunks[CHECKSUM / 4];
            words[CHECKSUM / 4] = u32::from_ne_bytes([0, 0, kept[2], kept[3]]);
        }
        mix(&mut sums, &words);
    }
    mix(&mut sums, &[0; SUMS]);
    mix(&mut sums, &[0; SUMS]);
    let folded = sums.iter().fold(block, |folded, sum| folded ^ sum);
    u16::try_from(folded % 65535 + 1).expect("at most 65535")
}

#[inline]
fn mix(sums: &mut [u32; SUMS], words: &[u32; SUMS]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(lsn: u32) -> Vec<u8> {
        let mut page: Vec<u8> = (0..8192u32).map(|number| (number * 7 + number / 256) as u8).collect();
        page[..4].copy_from_slice(&0u32.to_ne_bytes());
        page[4..8].copy_from_slice(&lsn.to_ne_bytes());
        let sum = checksum(&page, 77);
        page[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_ne_bytes());
        page
    }

    #[test]
    fn one_bit_more_or_another_place_is_noticed() {
        let start = Lsn::new(1000);
        assert!(is_sound(&page(999), 77, start));
        assert!(!is_sound(&page(999), 78, start));
        for place in [4, 100, 8191] {
            let mut changed = page(999);
            changed[place] ^= 1;
            assert!(!is_sound(&changed, 77, start), "{place}");
        }
    }

    #[test]
    fn new_pages_and_those_that_replay_writes_anew_are_kept() {
        assert!(is_sound(&[0; 8192], 1, Lsn::new(1000)));
        let mut torn = page(1000);
        torn[5000] ^= 1;
        assert!(is_sound(&torn, 77, Lsn::new(1000)));
        assert!(!is_sound(&torn, 77, Lsn::new(1001)));
    }
}
