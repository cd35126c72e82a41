//! The records that we find in real segments are those that `pg_waldump` finds.

use std::process::Command;

use outrider_bed::{PROGRAM_LIMIT, finish};
use outrider_wal::{Carried, Ending, Notable, Record, scan_records};

use super::postgres::{Postgres, binaries};

/// What both can tell of a record: its place, and what it says in `pg_waldump`'s words.
type Told = (String, String);

fn dumped(pg_wal: &std::path::Path, first: &str, last: &str) -> Vec<Told> {
    let mut dump = Command::new(binaries().join("pg_waldump"));
    dump.args(["-p"]).arg(pg_wal).args([first, last]).env("TZ", "UTC");
    let output = finish(&mut dump, PROGRAM_LIMIT).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.len() > 1000, "{}", String::from_utf8_lossy(&output.stderr));
    let mut told = Vec::new();
    for line in text.lines() {
        let field = |name: &str| line.split_once(name).unwrap().1.split(',').next().unwrap().trim();
        let (place, xid) = (field("lsn: "), field("tx: "));
        let (_, words) = line.split_once("desc: ").unwrap();
        let mut parts = words.split(' ');
        let kind = parts.next().unwrap();
        let time = |words: &str| words.split(" UTC").next().unwrap().to_owned();
        let what = match kind {
            "COMMIT" | "ABORT" => format!("{kind} {xid} {}", time(&words[kind.len() + 1..])),
            "COMMIT_PREPARED" | "ABORT_PREPARED" => {
                let (xid, rest) = words[kind.len() + 1..].split_once(": ").unwrap();
                format!("{kind} {xid} {}", time(rest))
            }
            "RESTORE_POINT" => words.to_owned(),
            "PARAMETER_CHANGE" => words.split(" wal_level").next().unwrap().to_owned(),
            "SWITCH" => "SWITCH".to_owned(),
            _ => continue,
        };
        told.push((place.trim_start_matches('0').to_owned(), what));
    }
    told
}

fn found(record: Record) -> Told {
    let time = |microseconds: i64| {
        let (days, rest) = (microseconds.div_euclid(86_400_000_000), microseconds.rem_euclid(86_400_000_000));
        let seconds = rest / 1_000_000;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{} {hour:02}:{minute:02}:{second:02}.{:06}", date(days), rest % 1_000_000)
    };
    let what = match record.what {
        Notable::Transaction { ending, xid, time: at } => {
            let kind = match ending {
                Ending::Commit => "COMMIT",
                Ending::Abort => "ABORT",
                Ending::CommitPrepared => "COMMIT_PREPARED",
                Ending::AbortPrepared => "ABORT_PREPARED",
            };
            format!("{kind} {xid} {}", time(at))
        }
        // pg_waldump shows no time of it.
        Notable::RestorePoint { name, .. } => format!("RESTORE_POINT {name}"),
        Notable::Parameters([connections, workers, senders, prepared, locks]) => format!(
            "PARAMETER_CHANGE max_connections={connections} max_worker_processes={workers} max_wal_senders={senders} \
             max_prepared_xacts={prepared} max_locks_per_xact={locks}"
        ),
        Notable::Switch => "SWITCH".to_owned(),
    };
    // pg_waldump pads the lower half with zeros.
    let place = record.start.get();
    (format!("{:X}/{:08X}", place >> 32, place & 0xFFFF_FFFF).trim_start_matches('0').to_owned(), what)
}

/// Days since 1970-01-01 as a date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: i64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    format!("{}-{month:02}-{day:02}", year_of_era + era * 400 + i64::from(month <= 2))
}

#[tokio::test]
async fn the_records_of_real_segments_are_those_that_pg_waldump_finds() {
    let mut postgres = Postgres::nowhere();
    postgres.initdb();
    postgres.configure("max_prepared_transactions = 5\nwal_level = logical");
    postgres.start();
    let client = postgres.connect().await;
    let first: String =
        client.query_one("SELECT pg_walfile_name(pg_switch_wal() + 1)", &[]).await.unwrap().get(0);
    client.batch_execute("CREATE TABLE t (i int, x text)").await.unwrap();
    for round in 0..40 {
        client
            .batch_execute(&format!(
                "INSERT INTO t SELECT i, repeat('x', i % 500) FROM generate_series(1, 5000) i;
                 BEGIN; SAVEPOINT a; INSERT INTO t VALUES (1); RELEASE a; SAVEPOINT b; DROP TABLE IF EXISTS u; \
                 CREATE TABLE u (i int); COMMIT;
                 BEGIN; DELETE FROM t WHERE i = {round}; ROLLBACK;
                 BEGIN; INSERT INTO t VALUES (2); CREATE TABLE w{round} (i int); PREPARE TRANSACTION 'p{round}';"
            ))
            .await
            .unwrap();
        let end = if round % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
        client.batch_execute(&format!("{end} PREPARED 'p{round}'")).await.unwrap();
        client.execute(&format!("SELECT pg_create_restore_point('point {round}')"), &[]).await.unwrap();
        if round == 20 {
            client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        }
    }
    let last: String =
        client.query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await.unwrap().get(0);
    drop(client);
    postgres.stop().await;
    compare(&postgres, &first, &last);
}

fn compare(postgres: &Postgres, first: &str, last: &str) {
    let segments = super::bench::names(&postgres.pg_wal());
    let mut segments: Vec<String> = segments.into_iter().filter(|name| name.len() == 24).collect();
    segments.retain(|name| name.as_str() >= first && name.as_str() <= last);
    segments.sort();
    assert!(segments.len() > 4, "{segments:?}");
    let (mut carried, mut crossings, mut ours): (Option<Carried>, u32, Vec<Told>) = (None, 0, Vec::new());
    for name in &segments {
        let bytes = std::fs::read(postgres.pg_wal().join(name)).unwrap();
        let each = &mut |record| ours.push(found(record));
        let scanned = scan_records(&bytes, carried.take(), Some(crc32c::crc32c_append), each).unwrap();
        crossings += u32::from(scanned.carried.is_some());
        carried = scanned.carried;
    }
    let theirs = dumped(&postgres.pg_wal(), first, last);
    assert!(theirs.len() > 40 * 6, "{}", theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
    println!("{} records in {} segments, {crossings} carried", ours.len(), segments.len());
}
