//! A real MinIO server, when its binary is on this machine. Dies with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outrider_bed::process::{self, Signal};
use outrider_store::S3Options;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::PATIENCE;
use super::s3::{BUCKET, KEY, SECRET, free_port, open, options};

pub(crate) struct Minio {
    directory: TempDir,
    child: Child,
    port: u16,
    certificates: Option<PathBuf>,
}

impl Minio {
    /// Starts one, with TLS when there is a directory of certificates; `None` when there is no binary.
    pub(crate) async fn start(certificates: Option<&Path>) -> Option<Self> {
        let Some(binary) = binary() else {
            // Where everything is proven a test that was left out counts as one that failed.
            assert!(std::env::var_os("CI").is_none(), "no minio on this machine: build it with `make minio`");
            println!("skipped: no minio (make minio)");
            return None;
        };
        // A free port may be taken before MinIO binds it: then with another.
        for _ in 0..5 {
            let mut minio = Self::launch(&binary, certificates);
            if minio.serves().await {
                return Some(minio);
            }
        }
        panic!("{} did not start", binary.display());
    }

    fn launch(binary: &Path, certificates: Option<&Path>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A directory below the data is a bucket.
        std::fs::create_dir_all(directory.path().join("data").join(BUCKET)).unwrap();
        let port = free_port();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        // setpriv becomes MinIO, and the kernel kills it with the thread that started it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary).args(["server", "--quiet", "--address"]);
        command.arg(format!("127.0.0.1:{port}")).arg(directory.path().join("data"));
        command.arg("--certs-dir").arg(certificates.unwrap_or(&directory.path().join("no-certificates")));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory.path());
        // Then `bucket.localhost` is a bucket, too.
        command.env("MINIO_DOMAIN", "localhost");
        command.env("MINIO_ROOT_USER", KEY).env("MINIO_ROOT_PASSWORD", SECRET).env("MINIO_BROWSER", "off");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().expect("setpriv is part of util-linux");
        Minio { directory, child, port, certificates: certificates.map(Path::to_owned) }
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        // By name, since that is what the certificate is for.
        format!("{scheme}://localhost:{}", self.port)
    }

    async fn serves(&mut self) -> bool {
        let ca_file = self.certificates.as_ref().map(|directory| directory.join("CAs/ca.crt"));
        let store = open(&S3Options {
            ca_file,
            request_timeout: Duration::from_secs(5),
            ..options(&self.endpoint())
        });
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < deadline && self.child.try_wait().unwrap().is_none() {
            match store.head("anything").await {
                Ok(_) => return true,
                Err(error) => last = error.to_string(),
            }
            sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        println!("MinIO does not serve: {last}\n{log}");
        false
    }

    /// Stops it in the middle of whatever it does, with all its connections open.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::Stop);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::Continue);
    }

    fn signal(&self, signal: Signal) {
        process::send(self.child.id().cast_signed(), signal);
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    places.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join("go/bin")));
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools"));
    places.into_iter().map(|place| place.join("minio")).find(|binary| binary.is_file())
}
