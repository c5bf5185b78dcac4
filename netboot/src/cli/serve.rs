//! `kiln serve`.

use anyhow::anyhow;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArg, Failure};
use crate::notify::Notify;
use crate::serve;
use crate::settings::{LogSettings, Settings};

/// Exit code of a part that died.
const DIED: u8 = 70;

/// Serve DHCP, TFTP and HTTP until told to stop
///
/// Reads kiln.toml (see `kiln config check`), opens every port, fetches iPXE from Debian's package when it is not
/// there yet, and answers. SIGTERM and Ctrl-C let running transfers end first.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArg,
}

impl ServeArgs {
    /// Settles what has to be settled before there is a second thread.
    pub fn prepare(&self) {
        crate::sys::share_memory();
    }

    /// Returns what the log is to look like, which is wanted before the settings are understood.
    pub fn log(&self) -> LogSettings {
        let text = std::fs::read_to_string(&self.config.config).unwrap_or_default();
        LogSettings::peek(&text)
    }
}

pub(super) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let settings = Settings::read(&args.config.config)
        .map_err(|error| Failure::new(Failure::CONFIG, error))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut running = tokio::select! {
        running = serve::start(settings) => running?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Some(address) = running.http_addr() {
        if let Some(address) = running.metrics_addr() {
            tracing::info!(metrics = %address, "serving metrics and health");
        }
        tracing::info!(http = %address, socket = %running.socket_path().display(), "serving");
    }
    let notify = Notify::from_env();
    notify.say("READY=1");
    let died = tokio::select! {
        what = running.failed() => Some(what),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    tracing::info!("stopping");
    notify.say("STOPPING=1");
    running.shutdown().await;
    died.map_or(Ok(()), |what| Err(Failure::new(DIED, anyhow!(what))))
}
