//! The way from one member to etcd, which can be cut or made slow for this member alone. It goes through this process, byte by
//! byte; nothing is lost for ever: what was held back arrives late, as TCP sends it again.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// What passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Everything.
    Whole,
    /// Nothing.
    Cut,
    /// What the member sends, but no answer: it cannot know what became of its requests.
    Deaf,
    /// Everything, each way this much later.
    Slow(Duration),
}

/// The way from one member to each member of etcd. It ends when this is dropped.
#[derive(Debug)]
pub struct Link {
    hosts: Vec<String>,
    passage: watch::Sender<Passage>,
    /// Where it leads, one for each of `hosts`.
    ends: watch::Sender<Vec<String>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Link {
    /// Opens a way to each of `hosts`.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn open(hosts: &[String]) -> anyhow::Result<Self> {
        let passage = watch::Sender::new(Passage::Whole);
        let ends = watch::Sender::new(hosts.to_vec());
        let mut link = Link { hosts: Vec::new(), passage, ends, tasks: Vec::new() };
        for place in 0..hosts.len() {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen before etcd")?;
            link.hosts.push(listener.local_addr()?.to_string());
            let (ends, passage) = (link.ends.subscribe(), link.passage.subscribe());
            link.tasks.push(tokio::spawn(accept(listener, place, ends, passage)));
        }
        Ok(link)
    }

    /// `host:port` of the near ends.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// From now on it leads to another etcd of as many members, as when a name was given another address. What was open breaks.
    pub fn lead_to(&self, hosts: &[String]) {
        self.ends.send_replace(hosts.to_vec());
    }

    /// Changes what passes from now on.
    pub fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

async fn accept(
    listener: TcpListener,
    place: usize,
    ends: watch::Receiver<Vec<String>>,
    passage: watch::Receiver<Passage>,
) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        connections.spawn(carry(near, place, ends.clone(), passage.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(
    near: TcpStream,
    place: usize,
    mut ends: watch::Receiver<Vec<String>>,
    passage: watch::Receiver<Passage>,
) {
    let host = ends.borrow_and_update()[place].clone();
    let Ok(far) = TcpStream::connect(&host).await else { return };
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    // When one way has ended, so has the connection.
    tokio::select! {
        _ = ends.changed() => {}
        () = pump(from_near, to_far, passage.clone(), |passage| passage == Passage::Cut) => {}
        () = pump(from_far, to_near, passage, |passage| matches!(passage, Passage::Cut | Passage::Deaf)) => {}
    }
}

/// Reads on while earlier bytes wait, so that a slow way is late and not narrow.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passage: watch::Receiver<Passage>,
    is_held: impl Fn(Passage) -> bool,
) {
    let (on_the_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let current = passage.clone();
    let reading = async move {
        loop {
            let mut bytes = vec![0; 16 << 10];
            let Ok(read @ 1..) = from.read(&mut bytes).await else { return };
            bytes.truncate(read);
            let delay = if let Passage::Slow(delay) = *current.borrow() { delay } else { Duration::ZERO };
            if on_the_way.send((Instant::now() + delay, bytes)).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, bytes)) = arriving.recv().await {
            sleep_until(due).await;
            if passage.wait_for(|now| !is_held(*now)).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
