//! The way from members to an object store, which closes by itself after so many segments of WAL were asked for through it,
//! or when a piece of an unfinished one is, in the middle of whatever is on the way. A store behind a closed gate is as good as dead. Changes no byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The gate. It ends when this is dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    open: watch::Sender<bool>,
    /// Segments that may be asked for before it closes.
    left: AtomicUsize,
    /// It closes before the first piece of a segment that was streamed.
    no_stream: AtomicBool,
    /// Connections that found it closed.
    in_vain: AtomicUsize,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    /// An open gate before the store at `host:port`.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn before(store: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen before the store")?;
        let state = Arc::new(State {
            open: watch::Sender::new(true),
            left: AtomicUsize::new(usize::MAX),
            no_stream: AtomicBool::new(false),
            in_vain: AtomicUsize::new(0),
        });
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, store.to_owned(), state.clone()));
        Ok(Gate { address, state, task })
    }

    /// `http://host:port` of the near end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens it, until this many more segments were asked for; the next one finds it closed.
    pub fn open_for(&self, segments: usize) {
        self.open_until(segments, false);
    }

    /// Opens it, until a piece of a segment that was streamed is asked for, which finds it closed.
    pub fn open_until_streamed(&self) {
        self.open_until(usize::MAX, true);
    }

    fn open_until(&self, segments: usize, no_stream: bool) {
        self.state.left.store(segments, Ordering::SeqCst);
        self.state.no_stream.store(no_stream, Ordering::SeqCst);
        self.state.in_vain.store(0, Ordering::SeqCst);
        self.state.open.send_replace(true);
    }

    /// Whether it has closed.
    pub fn is_closed(&self) -> bool {
        !*self.state.open.borrow()
    }

    /// How many connections have found it closed since it closed.
    pub fn in_vain(&self) -> usize {
        self.state.in_vain.load(Ordering::SeqCst)
    }
}

impl State {
    /// Notes what a client sends; whether it passes.
    fn lets_through(&self, bytes: &[u8]) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        let passes = match asked(bytes) {
            Asked::Segment => self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok(),
            Asked::Streamed => !self.no_stream.load(Ordering::SeqCst),
            Asked::Else => true,
        };
        if !passes {
            self.open.send_replace(false);
        }
        *self.open.borrow()
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Segment,
    Streamed,
    Else,
}

/// A request without a body comes as one piece, and its line is the first.
fn asked(bytes: &[u8]) -> Asked {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    // A listing has the prefix in its query, where slashes are encoded.
    if !line.starts_with("GET ") || line.contains(".history") {
        Asked::Else
    } else if line.contains("/wals/") {
        Asked::Segment
    } else if line.contains("/stream/") {
        Asked::Streamed
    } else {
        Asked::Else
    }
}

async fn accept(listener: TcpListener, store: String, state: Arc<State>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        if *state.open.borrow() {
            connections.spawn(carry(near, store.clone(), state.clone()));
        } else {
            state.in_vain.fetch_add(1, Ordering::SeqCst);
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut near: TcpStream, store: String, state: Arc<State>) {
    let Ok(mut far) = TcpStream::connect(&store).await else { return };
    let mut open = state.open.subscribe();
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let sent = tokio::select! {
            _ = async { open.wait_for(|open| !*open).await.map(drop) } => return,
            read = near.read(&mut asked) => match read {
                Ok(read @ 1..) if state.lets_through(&asked[..read]) => far.write_all(&asked[..read]).await,
                Ok(_) | Err(_) => return,
            },
            read = far.read(&mut answered) => match read {
                Ok(read @ 1..) => near.write_all(&answered[..read]).await,
                Ok(0) | Err(_) => return,
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_told_from_a_piece_of_one_and_from_a_listing() {
        for (request, expected) in [
            (
                "GET /b/bed/bed/wals/0000000100000000/000000010000000000000004.gz HTTP/1.1\r\nhost: x\r\n",
                Asked::Segment,
            ),
            ("HEAD /b/bed/bed/wals/0000000100000000/000000010000000000000004.gz HTTP/1.1\r\n", Asked::Else),
            ("GET /b/bed/bed/wals/00000002.history.gz HTTP/1.1\r\n", Asked::Else),
            ("GET /b/bed/bed/outrider/stream/000000010000000000000004/0-1.gz HTTP/1.1\r\n", Asked::Streamed),
            ("GET /b?list-type=2&prefix=bed%2Fwals%2F HTTP/1.1\r\n", Asked::Else),
        ] {
            assert_eq!(asked(request.as_bytes()), expected, "{request}");
        }
    }
}
