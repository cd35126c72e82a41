//! A whole cluster: etcd, an archive when it is wanted, and members. All of it is gone when it is dropped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::member::lay_over;
use crate::object_store::{ACCESS_KEY, BUCKET, SECRET_KEY};
use crate::{Endpoint, Etcd, Guard, Link, Member, ObjectStore, wait_until};

/// For a cluster to come up, on a machine that compiles at the same time.
pub const START_LIMIT: Duration = Duration::from_secs(60);

/// Where the members archive their WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// Nowhere.
    None,
    /// The embedded S3 server.
    Embedded,
    /// A real MinIO when its binary is on this machine, else the embedded server.
    MinioIfThere,
    /// A real MinIO with TLS and an authority of its own; an error when its binary is not on this machine.
    MinioWithTls,
    /// A directory.
    Directory,
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Builder {
    members: usize,
    etcd: usize,
    links: bool,
    archive: Archive,
    dcs: Value,
    settings: Value,
}

/// The cluster. Its fields are dropped in this order, the guard last.
#[derive(Debug)]
pub struct Cluster {
    /// The members.
    pub members: Vec<Member>,
    /// The object store, when the archive is in one.
    pub store: Option<ObjectStore>,
    /// The members' ways to etcd, in their order; none unless [`Builder::links`] asked for them.
    pub links: Vec<Link>,
    /// etcd.
    pub etcd: Etcd,
    /// The directory and all processes.
    pub guard: Arc<Guard>,
}

impl Builder {
    /// Three members, one etcd, no archive, the program's own rules.
    pub fn new() -> Self {
        Builder {
            members: 3,
            etcd: 1,
            links: false,
            archive: Archive::None,
            dcs: json!({}),
            settings: json!({}),
        }
    }

    /// This many members.
    #[must_use]
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// This many members of etcd.
    #[must_use]
    pub fn etcd(mut self, members: usize) -> Self {
        self.etcd = members;
        self
    }

    /// Every member on a [`Link`] of its own to etcd.
    #[must_use]
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    /// With this archive.
    #[must_use]
    pub fn archive(mut self, archive: Archive) -> Self {
        self.archive = archive;
        self
    }

    /// The rules of the cluster, laid over the defaults.
    #[must_use]
    pub fn dcs(mut self, dcs: Value) -> Self {
        lay_over(&mut self.dcs, &dcs);
        self
    }

    /// Settings of every member's file, laid over the bed's.
    #[must_use]
    pub fn settings(mut self, settings: Value) -> Self {
        lay_over(&mut self.settings, &settings);
        self
    }

    /// Starts etcd and the archive, and prepares the members without starting them.
    ///
    /// # Errors
    /// When a program is missing or the system refuses.
    pub async fn prepare(self) -> anyhow::Result<Cluster> {
        let guard = Arc::new(Guard::new()?);
        let etcd = Etcd::start(&guard, self.etcd).await?;
        let mut settings = json!({"bootstrap": {"dcs": self.dcs}});
        let store = match self.archive {
            Archive::None => None,
            Archive::Directory => {
                let path = guard.make_directory("archive")?;
                lay_over(&mut settings, &json!({"archive": {"store": format!("file://{}", path.display())}}));
                None
            }
            Archive::Embedded => Some(ObjectStore::start(&guard).await?),
            Archive::MinioWithTls => Some(ObjectStore::minio_with_tls(&guard).await?),
            Archive::MinioIfThere => match ObjectStore::minio(&guard).await? {
                Some(minio) => Some(minio),
                None => Some(ObjectStore::start(&guard).await?),
            },
        };
        if let Some(store) = &store {
            lay_over(&mut settings, &json!({"archive": in_store(store)}));
        }
        lay_over(&mut settings, &self.settings);
        let mut members = Vec::new();
        let mut links = Vec::new();
        for number in 1..=self.members {
            let mut hosts = etcd.hosts();
            if self.links {
                let link = Link::open(&hosts).await?;
                hosts = link.hosts().to_vec();
                links.push(link);
            }
            members.push(Member::prepare(&guard, &format!("member{number}"), &hosts, &settings)?);
        }
        Ok(Cluster { members, store, links, etcd, guard })
    }

    /// Starts all of it, and waits until every member streams.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub async fn start(self) -> anyhow::Result<Cluster> {
        let cluster = self.prepare().await?;
        for member in &cluster.members {
            member.start()?;
        }
        cluster.wait_until_whole().await?;
        Ok(cluster)
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

fn in_store(store: &ObjectStore) -> Value {
    let mut settings = json!({
        "store": format!("s3://{BUCKET}/bed"),
        "endpoint": store.endpoint(),
        "region": "us-east-1",
        "path_style": true,
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
    });
    if let Some(ca_file) = store.ca_file() {
        lay_over(&mut settings, &json!({"ca_file": ca_file}));
    }
    settings
}

impl Cluster {
    /// The member that leads; `None` while nobody says so.
    pub async fn leader(&self) -> Option<&Member> {
        for member in &self.members {
            if member.leads().await {
                return Some(member);
            }
        }
        None
    }

    /// Waits until somebody leads.
    ///
    /// # Errors
    /// When nobody does in time.
    pub async fn wait_for_leader(&self) -> anyhow::Result<&Member> {
        wait_until("a member leads", START_LIMIT, async || self.leader().await).await
    }

    /// Waits until another member than `former` leads.
    ///
    /// # Errors
    /// When nobody does in time.
    pub async fn wait_for_another(&self, former: &str) -> anyhow::Result<&Member> {
        let another = async || self.leader().await.filter(|leader| leader.name() != former);
        wait_until(format!("another than {former} leads"), START_LIMIT, another).await
    }

    /// The members that do not lead.
    ///
    /// # Errors
    /// When nobody leads in time.
    pub async fn standbys(&self) -> anyhow::Result<Vec<&Member>> {
        let leader = self.wait_for_leader().await?.name();
        Ok(self.members.iter().filter(|member| member.name() != leader).collect())
    }

    /// Waits until somebody leads and all others stream from it.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub async fn wait_until_whole(&self) -> anyhow::Result<()> {
        self.wait_until_streaming(self.members.len() - 1).await
    }

    /// Waits until somebody leads and this many others stream.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub async fn wait_until_streaming(&self, standbys: usize) -> anyhow::Result<()> {
        let all = async || {
            let leader = self.leader().await?;
            let mut streaming = 0;
            for member in &self.members {
                let Some(state) = member.patroni().await else { continue };
                streaming += usize::from(state["replication_state"] == "streaming");
            }
            // Each says so itself, and the leader has read it.
            let cluster: Value = serde_json::from_str(&leader.get("/cluster").await.ok()?.text).ok()?;
            let read =
                cluster["members"].as_array()?.iter().filter(|row| row["state"] == "streaming").count();
            (streaming >= standbys && read >= standbys).then_some(())
        };
        wait_until(format!("{standbys} standbys stream"), START_LIMIT, all).await
    }

    /// Waits until a standby is recorded as synchronous, and returns the names of all that are.
    ///
    /// # Errors
    /// When none is in time.
    pub async fn wait_until_synchronous(&self) -> anyhow::Result<Vec<String>> {
        let recorded = async || {
            let text = self.etcd.get("/service/bed/sync").await.ok()??;
            let sync: Value = serde_json::from_str(&text).ok()?;
            let leader = self.leader().await?;
            let names: Vec<String> = sync["sync_standby"]
                .as_str()?
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            (sync["leader"] == leader.name() && !names.is_empty()).then_some(names)
        };
        wait_until("a standby is recorded as synchronous", START_LIMIT, recorded).await
    }

    /// The member of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|member| member.name() == name).expect("a member of that name")
    }

    /// This member's way to etcd.
    ///
    /// # Panics
    /// When [`Builder::links`] did not ask for it.
    pub fn link(&self, member: &Member) -> &Link {
        let at = self.members.iter().position(|one| one.name() == member.name());
        at.and_then(|at| self.links.get(at)).expect("a link of that member")
    }

    /// Where clients find the Postgres of the members.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.members
            .iter()
            .map(|member| Endpoint { name: member.name().to_owned(), port: member.port() })
            .collect()
    }

    /// The files of a member's archive, when it is a directory.
    pub fn archive_directory(&self) -> PathBuf {
        self.guard.directory().join("archive")
    }
}
