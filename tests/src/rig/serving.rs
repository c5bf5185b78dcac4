use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kiln_inventory::Lease;
use tokio::time::Instant;

use super::program::{kiln, program};

const PATIENCE: Duration = Duration::from_secs(120);

/// The program itself, as `kiln serve` with a folder of its own, apart from this process so that it can be killed. It is
/// killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    child: Child,
    folder: PathBuf,
}

impl Serving {
    /// Starts it with these lines of a `[[subnet]]`, on what an earlier one has left in the folder.
    pub(crate) fn start(folder: &Path, subnet: &str) -> anyhow::Result<Self> {
        Self::start_by(Command::new("setpriv"), folder, subnet)
    }

    /// The same by a command that is `setpriv`, perhaps in another network.
    pub(crate) fn start_by(
        mut setpriv: Command,
        folder: &Path,
        subnet: &str,
    ) -> anyhow::Result<Self> {
        let loaders = folder.join("loaders");
        fs::create_dir_all(&loaders)?;
        // No machine boots here; the server wants to have a loader all the same.
        fs::write(loaders.join("undionly.kpxe"), "none")?;
        let dir = folder.display();
        let text = format!(
            "[server]\ndata-dir = \"{dir}/data\"\nsocket = \"{dir}/kiln.sock\"\n[store]\ndir = \"{dir}/store\"\n\
             [loaders]\ndir = \"{dir}/loaders\"\n[[subnet]]\n{subnet}"
        );
        let config = folder.join("kiln.toml");
        fs::write(&config, text)?;
        let child = setpriv
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program())
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .env("RUST_LOG", "warn")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(File::create(folder.join("log"))?)
            .spawn()
            .context("cannot run kiln serve")?;
        Ok(Self { child, folder: folder.to_owned() })
    }

    /// Waits until its socket answers.
    pub(crate) fn is_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.folder.join("kiln.sock")).is_err() {
            if Instant::now() >= deadline {
                bail!("the server does not start: {}", self.log()?);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Returns its log, from warnings on.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.folder.join("log"))?)
    }

    /// Asks it by the command line for the leases that run.
    pub(crate) fn leases(&self) -> anyhow::Result<Vec<Lease>> {
        let socket = self.folder.join("kiln.sock").display().to_string();
        let listed = kiln(&["lease", "list", "-o", "json", "--socket", &socket])?;
        ensure!(listed.code == Some(0), "{}", listed.stderr);
        // Only those of DHCPv6 have a DUID.
        let rows: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout)?;
        let four = rows.into_iter().filter(|row| row.get("duid").is_none());
        Ok(four.map(serde_json::from_value::<Lease>).collect::<Result<Vec<_>, _>>()?)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
