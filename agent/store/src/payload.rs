//! The bytes of an object on their way to the store, in pieces. Knows its length and checksum, not its meaning.

use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Bytes in a piece. Below the size from which the C library maps memory separately and keeps more of it once freed: with
/// one buffer per segment an agent that had stopped shipping held on to 20 MiB.
const PIECE: usize = 64 * 1024;

/// The bytes of an object.
#[derive(Clone, Debug)]
pub struct Payload {
    pieces: Vec<Bytes>,
    length: u64,
    /// Computed on demand: over TLS nobody asks for it.
    sha256: OnceLock<String>,
    /// Computed on demand.
    md5: OnceLock<[u8; 16]>,
}

impl Payload {
    /// The pieces in order.
    #[must_use]
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Bytes in all pieces.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// SHA-256 of all bytes in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| {
            let mut sum = Sha256::new();
            self.pieces.iter().for_each(|piece| sum.update(piece));
            hexadecimal(&sum.finalize())
        })
    }

    /// MD5 of all bytes, which S3 requires for objects that may be locked.
    pub(crate) fn md5(&self) -> [u8; 16] {
        *self.md5.get_or_init(|| {
            let mut sum = md5::Context::new();
            self.pieces.iter().for_each(|piece| sum.consume(piece));
            sum.finalize().0
        })
    }

    /// Adopts checksums that a clone has computed.
    pub(crate) fn note_sums(&self, sha256: Option<String>, md5: Option<[u8; 16]>) {
        // Those already there are the same.
        sha256.map(|sum| self.sha256.set(sum).ok());
        md5.map(|sum| self.md5.set(sum).ok());
    }

    pub(crate) fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Payload {
            length: bytes.len() as u64,
            pieces: vec![bytes],
            sha256: OnceLock::new(),
            md5: OnceLock::new(),
        }
    }
}

/// Collects a payload.
#[derive(Default)]
pub struct PayloadWriter {
    pieces: Vec<Bytes>,
    piece: Vec<u8>,
    length: u64,
}

impl PayloadWriter {
    /// What was written so far.
    #[must_use]
    pub fn finish(mut self) -> Payload {
        self.pieces.push(self.piece.into());
        Payload { pieces: self.pieces, length: self.length, sha256: OnceLock::new(), md5: OnceLock::new() }
    }
}

impl io::Write for PayloadWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            self.pieces.push(std::mem::take(&mut self.piece).into());
        }
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE);
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        self.length += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_written_is_what_the_pieces_hold() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let bytes: Vec<u8> = (0..length).map(|number| number as u8).collect();
            let mut writer = PayloadWriter::default();
            for part in bytes.chunks(1000) {
                writer.write_all(part).unwrap();
            }
            let payload = writer.finish();
            assert_eq!(payload.pieces().concat(), bytes);
            assert_eq!(
                (payload.length(), payload.sha256()),
                (length as u64, Payload::from(Bytes::from(bytes)).sha256())
            );
        }
    }
}
