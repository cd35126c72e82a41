//! A member with a tablespace that must be cloned anew: its old data moved aside or emptied, whatever its directories are; and
//! one that cannot be, which says why and how often it has tried.

use std::fs;
use std::path::{Path, PathBuf};

use outrider_bed::{Builder, Cluster, Endpoint, Member, wait_until};

use crate::kept::primary;
use crate::story::{LIMIT, logs};

/// Two members, each with a disk of its own at the same path, as on two machines.
struct Machines {
    cluster: Cluster,
    /// Where both see theirs.
    disk: PathBuf,
}

impl Machines {
    async fn start() -> Self {
        let cluster = Builder::new().members(2).prepare().await.unwrap();
        let disk = cluster.guard.make_directory("disk").unwrap();
        let machines = Machines { cluster, disk };
        for member in &machines.cluster.members {
            machines.cluster.guard.account().make_directory(&own_disk(member)).unwrap();
            machines.cluster.guard.account().make_directory(&own_disk(member).join("space")).unwrap();
            machines.start_member(member, &[]);
        }
        machines.cluster.wait_until_whole().await.unwrap();
        machines
    }

    fn start_member(&self, member: &Member, more: &[(PathBuf, PathBuf)]) {
        let mut mounts = vec![(own_disk(member), self.disk.clone())];
        mounts.extend_from_slice(more);
        member.start_with_mounts(&mounts).unwrap();
    }

    /// A rewind was broken off, so that the data is of no use; then it comes back with every row.
    async fn clone_anew(&self, member: &Member, more: &[(PathBuf, PathBuf)]) {
        fs::write(member.state_directory().join("rewinding"), "").unwrap();
        self.start_member(member, more);
        self.is_whole(member).await;
    }

    async fn is_whole(&self, member: &Member) {
        let wanted = primary(&self.cluster).await.text(ROWS).await.unwrap();
        let endpoint = Endpoint { name: member.name().to_owned(), port: member.port() };
        let has = async || {
            let streams = member.patroni().await?["replication_state"] == "streaming";
            let rows = endpoint.connect().await.ok()?.text(ROWS).await.ok()?;
            (streams && rows == wanted).then_some(())
        };
        wait_until("the standby has every row of the tablespace", LIMIT, has)
            .await
            .unwrap_or_else(|fault| panic!("{fault}; {}", logs(&self.cluster)));
    }
}

const ROWS: &str = "SELECT count(*)::text FROM placed";

fn own_disk(member: &Member) -> PathBuf {
    member.directory().join("disk")
}

fn is_filled(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_a_tablespace_is_cloned_anew() {
    let machines = Machines::start().await;
    let cluster = &machines.cluster;
    let space = machines.disk.join("space");
    let create = format!("CREATE TABLESPACE space LOCATION '{}'", space.display());
    let connection = primary(cluster).await;
    connection.run(&create).await.unwrap();
    connection
        .run("CREATE TABLE placed TABLESPACE space AS SELECT generate_series(1, 1000) AS row")
        .await
        .unwrap();
    let standby = cluster.standbys().await.unwrap().remove(0);
    machines.is_whole(standby).await;

    standby.kill_node();
    machines.clone_anew(standby, &[]).await;
    assert!(standby.directory().join("data.replaced/PG_VERSION").exists());
    assert!(is_filled(&own_disk(standby).join("space.replaced")), "{}", standby.log());

    // What a copy that was killed has left in the tablespace, before anything links it.
    standby.kill_node();
    fs::write(standby.state_directory().join("cloning"), format!("begun\n{}\n", space.display())).unwrap();
    fs::remove_dir_all(standby.data_directory()).unwrap();
    machines.start_member(standby, &[]);
    machines.is_whole(standby).await;

    // Somebody else's file is in the way: it says so, counts, and goes on when it is gone.
    standby.kill_node();
    let diary = own_disk(standby).join("space/diary.txt");
    fs::write(&diary, "dear diary").unwrap();
    fs::write(standby.state_directory().join("rewinding"), "").unwrap();
    machines.start_member(standby, &[]);
    let counts = async || {
        let list = standby.outrider(&["list", "--format", "json"]).ok()?;
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        (list.contains("clone failed 2 times") && list.contains("diary.txt")).then_some(())
    };
    wait_until("the count of failures is in the list", LIMIT, counts)
        .await
        .unwrap_or_else(|fault| panic!("{fault}; {}", standby.log()));
    fs::remove_file(diary).unwrap();
    machines.is_whole(standby).await;

    // A data directory that is a volume by itself, and a tablespace that is one.
    standby.kill_node();
    let (volume, data) = (standby.directory().join("volume"), standby.data_directory());
    fs::rename(&data, &volume).unwrap();
    cluster.guard.account().make_directory(&data).unwrap();
    fs::set_permissions(&data, fs::metadata(&volume).unwrap().permissions()).unwrap();
    fs::remove_dir_all(standby.directory().join("data.replaced")).unwrap();
    let mounts = [(volume.clone(), data.clone()), (own_disk(standby).join("space"), space.clone())];
    machines.clone_anew(standby, &mounts).await;
    assert!(volume.join("PG_VERSION").exists(), "the volume holds the new data");
    assert!(!standby.directory().join("data.replaced").exists());
}
