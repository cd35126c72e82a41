//! An object on its way from the store as a reader for a thread that computes. Knows nothing of what is in it.

use std::io::{self, ErrorKind, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

use outrider_store::{self as store, Download};

/// Pieces between the network and the thread.
const PIECES: usize = 8;

/// What goes to the thread.
enum Piece {
    Bytes(Bytes),
    /// The object ended as it should.
    End,
}

/// Reads what comes. An object that broke off is an error, never an end.
pub(super) struct PieceReader {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
    ended: bool,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.rest = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it broke off")),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

/// Gives the object to `work` on a thread of its own; returns what that makes of it, and the bytes that came.
///
/// # Errors
/// When the object does not come whole.
pub(super) async fn read_on_a_thread<T: Send + 'static>(
    mut download: Download,
    work: impl FnOnce(PieceReader) -> T + Send + 'static,
) -> Result<(T, u64), store::Error> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let reader = PieceReader { pieces, rest: Bytes::new(), ended: false };
    let working = tokio::task::spawn_blocking(move || work(reader));
    let mut bytes = 0;
    loop {
        let piece = match download.body.next().await? {
            Some(piece) => {
                bytes += piece.len() as u64;
                Piece::Bytes(piece)
            }
            None => Piece::End,
        };
        let last = matches!(piece, Piece::End);
        // The thread hangs up when it has seen a fault; its own answer says which.
        if sender.send(piece).await.is_err() || last {
            break;
        }
    }
    drop(sender);
    let done = working.await.map_err(|panicked| store::Error::Unreachable {
        act: "read",
        url: String::new(),
        cause: panicked.to_string(),
    })?;
    Ok((done, bytes))
}
