//! A proxy between the client and the store that breaks what passes: requests and answers are cut, lost or late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Everything passes.
    None,
    /// The connection ends after this many bytes of requests.
    CutRequest(usize),
    /// The connection ends after this many bytes of answers.
    CutAnswer(usize),
    /// Requests reach the store, the connection ends when it has answered.
    LoseAnswer,
    /// Requests reach the store, no answer comes and nothing ends.
    HoldAnswer,
    /// The store is not asked: `503 SlowDown`.
    SlowDown,
    /// The store is not asked: a web page, with this status.
    Page(u16),
}

pub(crate) struct Interference {
    port: u16,
    shared: Arc<Shared>,
    _running: JoinSet<()>,
}

struct Shared {
    /// The fault, and on how many connections yet.
    fault: Mutex<(Fault, u32)>,
    met: AtomicU32,
    /// The answer to the next request that begins so is lost, on whatever connection.
    lose: std::sync::Mutex<Option<String>>,
}

impl Interference {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            fault: Mutex::new((Fault::None, 0)),
            met: AtomicU32::new(0),
            lose: Default::default(),
        });
        let mut running = JoinSet::new();
        let passing = Arc::clone(&shared);
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, port, Arc::clone(&passing)));
            }
        });
        Interference { port: own_port, shared, _running: running }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next `times` connections suffer this. Those that are open already do not: a client must be new.
    pub(crate) async fn on_next(&self, times: u32, fault: Fault) {
        *self.shared.fault.lock().await = (fault, times);
        self.shared.met.store(0, Ordering::SeqCst);
    }

    /// The answer to the next request that begins so is lost.
    pub(crate) fn lose_answer_to(&self, request: &str) {
        *self.shared.lose.lock().unwrap() = Some(request.to_owned());
    }

    /// Whether that has happened.
    pub(crate) fn has_lost(&self) -> bool {
        self.shared.lose.lock().unwrap().is_none()
    }

    /// How many connections have suffered since.
    pub(crate) fn met(&self) -> u32 {
        self.shared.met.load(Ordering::SeqCst)
    }
}

async fn pass(mut client: TcpStream, port: u16, shared: Arc<Shared>) {
    let fault = {
        let mut fault = shared.fault.lock().await;
        if fault.1 == 0 {
            Fault::None
        } else {
            fault.1 -= 1;
            shared.met.fetch_add(1, Ordering::SeqCst);
            fault.0
        }
    };
    let answer = match fault {
        Fault::SlowDown => {
            Some((503, "<Error><Code>SlowDown</Code><Message>reduce your rate</Message></Error>"))
        }
        Fault::Page(status) => Some((status, "<html><body>The gateway is out of order.</body></html>")),
        _ => None,
    };
    if let Some((status, body)) = answer {
        let length = body.len();
        let text =
            format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        // The whole request first: a connection that is closed with unread bytes is reset.
        let mut buffer = vec![0; 64 * 1024];
        let _ = client.read(&mut buffer).await;
        let _ = client.write_all(text.as_bytes()).await;
        let _ = client.shutdown().await;
        while client.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (requests, answers) = match fault {
        Fault::CutRequest(bytes) => (bytes, usize::MAX),
        Fault::CutAnswer(bytes) => (usize::MAX, bytes),
        Fault::LoseAnswer => (usize::MAX, 0),
        _ => (usize::MAX, usize::MAX),
    };
    let hold = fault == Fault::HoldAnswer;
    let lost = AtomicBool::new(false);
    let look = |bytes: &[u8]| {
        let mut lose = shared.lose.lock().unwrap();
        if lose.as_ref().is_some_and(|request| bytes.starts_with(request.as_bytes())) {
            *lose = None;
            lost.store(true, Ordering::SeqCst);
        }
        true
    };
    tokio::select! {
        () = copy(from_client, to_server, requests, false, look) => {},
        () = copy(from_server, to_client, answers, hold, |_| !lost.load(Ordering::SeqCst)) => {},
    }
}

/// Passes at most this many bytes on, then ends; or swallows them all.
async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut left: usize,
    swallow: bool,
    goes_on: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || !goes_on(&buffer[..count]) {
            return;
        }
        let passed = count.min(left);
        if !swallow && to.write_all(&buffer[..passed]).await.is_err() {
            return;
        }
        if passed < count {
            return;
        }
        left -= passed;
    }
}
