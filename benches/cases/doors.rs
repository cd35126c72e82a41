//! Health checks while a crowd holds the REST API: 2,000 clients that are silent, drip, never end or do not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use outrider_bed::{Builder, Member, process, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::figures::{Measure, Outcome, Row, Target};

/// Clients at one time; each comes again when it is sent away.
const CROWD: usize = 2000;
/// Health checks in each crowd, each on a line of its own, as a load balancer makes them.
const CHECKS: usize = 300;
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// Between two bytes of one that drips, and before one that was sent away comes again.
const DRIP: Duration = Duration::from_millis(500);
const COME_LIMIT: Duration = Duration::from_secs(60);

const HEAD: &str = "Host: 127.0.0.1\r\n";

/// What a client of a crowd does.
#[derive(Clone, Copy)]
enum Kind {
    Nobody,
    Silent,
    Dripping,
    EndlessBody,
    NotReading,
}

const CROWDS: [(Kind, &str, &str); 5] = [
    (Kind::Nobody, "doors, nobody else", "doors, nobody else, agent's RSS"),
    (Kind::Silent, "doors, 2,000 silent", "doors, 2,000 silent, agent's RSS"),
    (Kind::Dripping, "doors, 2,000 dripping heads", "doors, 2,000 dripping heads, agent's RSS"),
    (Kind::EndlessBody, "doors, 2,000 endless bodies", "doors, 2,000 endless bodies, agent's RSS"),
    (Kind::NotReading, "doors, 2,000 not reading", "doors, 2,000 not reading, agent's RSS"),
];

pub(super) async fn run() -> anyhow::Result<Outcome> {
    let cluster = Builder::new().members(1).start().await?;
    let leader = cluster.wait_for_leader().await?;
    let address = leader.url().trim_start_matches("http://").to_owned();
    let mut outcome = Outcome { case: "doors", rows: Vec::new(), books: None, faults: Vec::new() };
    for (kind, name, memory) in CROWDS {
        let (inside, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut crowd = JoinSet::new();
        if !matches!(kind, Kind::Nobody) {
            for _ in 0..CROWD {
                crowd.spawn(press(kind, address.clone(), inside.clone(), stop.clone()));
            }
            let come = async || (inside.load(Ordering::Relaxed) >= CROWD).then_some(());
            wait_until("the crowd has come", COME_LIMIT, come).await?;
        }
        // Ranks of the table are p50 and p95; here all of them but one in a hundred.
        let target = Target::Ranks(100.0, 100.0);
        let mut row = Row::new(Measure { name, unit: "ms", digits: 1, target });
        for _ in 0..CHECKS {
            let begun = Instant::now();
            match timeout(CHECK_LIMIT, check(&address)).await {
                Ok(Ok(())) => row.figures.push(begun.elapsed().as_secs_f64() * 1000.0),
                Ok(Err(fault)) => outcome.failed(format!("{name}: {fault:#}")),
                Err(_) => outcome.failed(format!("{name}: no answer within {CHECK_LIMIT:?}")),
            }
            sleep(CHECK_INTERVAL).await;
        }
        println!("  {}; p99 {:.1} ms", row.summary(), row.rank(99).unwrap_or_default());
        outcome.rows.push(row);
        outcome.rows.push(resident(memory, leader)?);
        stop.store(true, Ordering::Relaxed);
        crowd.shutdown().await;
    }
    Ok(outcome)
}

fn resident(name: &'static str, member: &Member) -> anyhow::Result<Row> {
    let stat = member.agent_pid().and_then(process::stat).context("the agent has ended")?;
    let mut row = Row::new(Measure { name, unit: "MiB", digits: 1, target: Target::None });
    row.figures.push(stat.resident as f64 / (1024.0 * 1024.0));
    println!("  {}", row.summary());
    Ok(row)
}

/// `GET /primary` on a line of its own, answered with yes.
async fn check(address: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /primary HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// One of the crowd. Whoever is sent away comes again.
async fn press(kind: Kind, address: String, inside: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    let mut counted = false;
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            if !counted {
                inside.fetch_add(1, Ordering::Relaxed);
                counted = true;
            }
            // Until it is sent away.
            let _ = stay(kind, &mut stream).await;
        }
        sleep(DRIP).await;
    }
}

async fn stay(kind: Kind, stream: &mut TcpStream) -> std::io::Result<()> {
    match kind {
        Kind::Nobody => Ok(()),
        Kind::Silent => stream.read_u8().await.map(drop),
        Kind::Dripping => {
            stream.write_all(format!("GET /primary HTTP/1.1\r\n{HEAD}X: ").as_bytes()).await?;
            loop {
                stream.write_all(b"x").await?;
                sleep(DRIP).await;
            }
        }
        Kind::EndlessBody => {
            let head = format!("POST /switchover HTTP/1.1\r\n{HEAD}Content-Length: 100000000\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(&[b' '; 1024]).await?;
                sleep(DRIP).await;
            }
        }
        Kind::NotReading => loop {
            stream.write_all(format!("GET /patroni HTTP/1.1\r\n{HEAD}\r\n").repeat(20).as_bytes()).await?;
            sleep(DRIP).await;
        },
    }
}
