//! An S3 object store on files: one in this process (s3s-fs), or a real MinIO when its binary is on this machine.

mod uploads;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::runtime::Runtime;

use crate::etcd::http_client;
use crate::{Guard, PROGRAM_LIMIT, Port, finish, programs, wait_until};

pub use uploads::Uploads;

/// The bucket that is there from the start.
pub const BUCKET: &str = "postgres-backups";
/// The access key.
pub const ACCESS_KEY: &str = "minio";
/// The secret key.
pub const SECRET_KEY: &str = "miniosecret";

const START_LIMIT: Duration = Duration::from_secs(20);
/// MinIO counts its requests anew this often.
const COUNTED: Duration = Duration::from_secs(12);

/// The store. It can be stopped and started again on its objects; a MinIO dies with the [`Guard`].
#[derive(Debug)]
pub struct ObjectStore {
    directory: PathBuf,
    address: SocketAddr,
    port: Port,
    server: Mutex<Server>,
    /// Those of the embedded server; they outlive a stop, as with any store.
    uploads: Uploads,
    minio: Option<PathBuf>,
    /// With TLS: MinIO's directory of certificates, and in it `CAs/ca.crt`, the authority.
    certificates: Option<PathBuf>,
}

#[derive(Debug)]
enum Server {
    Stopped,
    /// A runtime of its own, so that stopping it cuts the connections too.
    Embedded(Runtime),
    Minio(Child),
}

impl ObjectStore {
    /// Starts the embedded server.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn start(guard: &Guard) -> anyhow::Result<Self> {
        Self::start_with(guard, None, None).await
    }

    /// Starts MinIO; `None` when its binary is not there (`make minio`).
    ///
    /// # Errors
    /// When it does not start.
    pub async fn minio(guard: &Guard) -> anyhow::Result<Option<Self>> {
        match programs::minio() {
            Some(binary) => Self::start_with(guard, Some(binary), None).await.map(Some),
            None => Ok(None),
        }
    }

    /// Starts MinIO with TLS and a certificate authority of its own.
    ///
    /// # Errors
    /// When its binary or openssl is not there, or it does not start.
    pub async fn minio_with_tls(guard: &Guard) -> anyhow::Result<Self> {
        let binary = programs::minio().context("no MinIO on this machine: make minio")?;
        let certificates = guard.make_directory("certificates")?;
        certify(guard, &certificates)?;
        Self::start_with(guard, Some(binary), Some(certificates)).await
    }

    async fn start_with(
        guard: &Guard,
        minio: Option<PathBuf>,
        certificates: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let directory = guard.make_directory("objects")?;
        // A directory below the root is a bucket, for both servers.
        guard.account().make_directory(&directory.join(BUCKET))?;
        let minio = minio.map(|binary| guard.account().reachable(&binary, guard.directory())).transpose()?;
        let port = Port::free()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
        let server = Mutex::new(Server::Stopped);
        let uploads = Uploads::default();
        let store = ObjectStore { directory, address, port, server, uploads, minio, certificates };
        store.start_again(guard).await?;
        Ok(store)
    }

    /// Starts it again, at the same address and on the same objects.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_again(&self, guard: &Guard) -> anyhow::Result<()> {
        self.port.release();
        let server = match &self.minio {
            None => Server::Embedded(serve(&self.directory, self.address, self.uploads.clone())?),
            Some(binary) => Server::Minio(self.spawn_minio(guard, binary)?),
        };
        *self.server() = server;
        // Whether it answers is all that is asked, in whatever language: with TLS the port is open when it serves.
        let http = http_client()?;
        let answers = async || match &self.certificates {
            None => http.get(self.endpoint()).send().await.ok().map(drop),
            Some(_) => tokio::net::TcpStream::connect(self.address).await.ok().map(drop),
        };
        wait_until("the object store answers", START_LIMIT, answers).await
    }

    /// Stops it: from now on connections are refused.
    pub fn stop(&self) {
        match std::mem::replace(&mut *self.server(), Server::Stopped) {
            Server::Stopped => {}
            Server::Embedded(runtime) => runtime.shutdown_background(),
            Server::Minio(mut child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// Which server it is.
    pub fn kind(&self) -> &'static str {
        if self.minio.is_some() { "MinIO" } else { "s3s-fs, embedded" }
    }

    /// `http://host:port`, or with TLS `https://localhost:port`, which is what its certificate is for.
    pub fn endpoint(&self) -> String {
        match self.certificates {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// The PEM file of the authority that signed its certificate; `None` without TLS.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.certificates.as_ref().map(|directory| directory.join("CAs/ca.crt"))
    }

    /// The names of all objects of the bucket.
    pub fn keys(&self) -> Vec<String> {
        let bucket = self.directory.join(BUCKET);
        let mut keys = Vec::new();
        collect(&bucket, &bucket, &mut keys);
        if self.minio.is_some() {
            // An object is a directory there: its state in this file, and perhaps its bytes in others.
            keys = keys.iter().filter_map(|key| key.strip_suffix("/xl.meta")).map(str::to_owned).collect();
        }
        keys.sort();
        keys
    }

    /// The bytes of an object; `None` when it is absent. Of the embedded server's only.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.directory.join(BUCKET).join(key)).ok()
    }

    /// The keys of the uploads under way, and of those that nobody goes on with. Of the embedded server's only.
    pub fn uploading(&self) -> Vec<String> {
        self.uploads.keys()
    }

    /// Bytes of the parts of all uploads. Of the embedded server's only.
    pub fn uploaded_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let parts = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".upload_id-"));
        parts.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
    }

    /// Gives all objects and uploads of a folder the name that they would have if they had been written at another time.
    /// Of the embedded server's only.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn rename_folder(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let bucket = self.directory.join(BUCKET);
        std::fs::rename(bucket.join(from), bucket.join(to))
            .with_context(|| format!("cannot rename {from}"))?;
        self.uploads.rename(&format!("{from}/"), &format!("{to}/"));
        Ok(())
    }

    /// Requests that MinIO has answered since it began.
    ///
    /// # Errors
    /// When it is the embedded server, or does not tell.
    pub async fn requests(&self) -> anyhow::Result<u64> {
        // What it tells is up to ten seconds old.
        tokio::time::sleep(COUNTED).await;
        let mut client = crate::etcd::http_client_builder();
        if let Some(file) = self.ca_file() {
            client = client.add_root_certificate(reqwest::Certificate::from_pem(&std::fs::read(file)?)?);
        }
        let url = format!("{}/minio/v2/metrics/cluster", self.endpoint());
        let answer = client.build()?.get(&url).send().await?.error_for_status()?.text().await?;
        anyhow::ensure!(answer.contains("minio_s3_requests_"), "{url} tells nothing of requests");
        let counted = answer.lines().filter(|line| line.starts_with("minio_s3_requests_total{"));
        Ok(counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    }

    fn spawn_minio(&self, guard: &Guard, binary: &Path) -> anyhow::Result<Child> {
        let log =
            std::fs::File::options().create(true).append(true).open(guard.directory().join("minio.log"))?;
        let mut command = guard.command(binary, guard.directory());
        command.args(["server", "--quiet", "--address", &self.address.to_string()]).arg(&self.directory);
        if let Some(certificates) = &self.certificates {
            command.arg("--certs-dir").arg(certificates);
        }
        command.env("HOME", guard.directory()).env("MINIO_BROWSER", "off");
        command.env("MINIO_PROMETHEUS_AUTH_TYPE", "public");
        command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
        command.stdout(log.try_clone()?).stderr(log).spawn().context("cannot start MinIO")
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An authority and a certificate of it for `localhost`, laid out as MinIO wants them.
fn certify(guard: &Guard, directory: &Path) -> anyhow::Result<()> {
    const SCRIPT: &str = "mkdir CAs && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bed \
            -keyout ca.key -out CAs/ca.crt -addext basicConstraints=critical,CA:TRUE && \
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout private.key -out server.csr && \
        printf 'subjectAltName=DNS:localhost\\n' > ext && \
        openssl x509 -req -in server.csr -CA CAs/ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile ext -out public.crt";
    let mut openssl = guard.command(Path::new("/bin/sh"), directory);
    let output = finish(openssl.args(["-c", SCRIPT]), PROGRAM_LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "openssl makes no certificate: {}", said.trim());
    Ok(())
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone)]
struct Embedded {
    service: S3Service,
    /// s3s-fs looks and then writes, so two conditional puts at one time could both succeed: one after the other here.
    puts: Arc<tokio::sync::Mutex<()>>,
    uploads: Uploads,
}

fn serve(directory: &Path, address: SocketAddr, uploads: Uploads) -> anyhow::Result<Runtime> {
    let files = s3s_fs::FileSystem::new(directory);
    let files = files.map_err(|fault| anyhow::anyhow!("cannot open {}: {fault:?}", directory.display()))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let embedded = Embedded { service: builder.build(), puts: Arc::default(), uploads };
    let listener = std::net::TcpListener::bind(address).context("cannot listen for the object store")?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(async move {
        // It ends with its runtime only.
        let _ = axum::serve(listener, Router::new().fallback(answer).with_state(embedded)).await;
    });
    Ok(runtime)
}

async fn answer(State(embedded): State<Embedded>, request: Request) -> Response {
    let _turn = if request.method() == Method::PUT { Some(embedded.puts.lock().await) } else { None };
    embedded.uploads.answer(&embedded.service, BUCKET, request).await
}

fn collect(root: &Path, directory: &Path, keys: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, keys);
        } else if let Ok(key) = path.strip_prefix(root) {
            keys.push(key.to_string_lossy().into_owned());
        }
    }
}
