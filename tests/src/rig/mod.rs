//! What the cases stand on: needs, images that are built once, private networks, deadlines.

mod direct;
mod dnsmasq;
mod http;
mod image;
pub(crate) mod layout;
mod load6;
mod needs;
mod plan_server;
mod program;
mod proxy;
mod registry;
mod scene;
mod serving;

pub(crate) use direct::Direct;
pub(crate) use dnsmasq::Dnsmasq;
pub(crate) use http::fetch;
pub(crate) use image::{
    IMAGE, firmware_of_debian_13, image, loaders, made, secure_loaders, store, stub, work_folder,
};
pub(crate) use load6::{Load6, Told, owners};
pub(crate) use needs::Need;
pub(crate) use plan_server::PlanServer;
pub(crate) use program::{Finished, kiln, kiln_in, program};
pub(crate) use proxy::Proxy;
pub(crate) use registry::{PASSWORD, Registry, USER, free};
pub(crate) use scene::{Scene, until};
pub(crate) use serving::Serving;

use libtest_mimic::{Failed, Trial};

/// One case: a name, what it needs, and what it does.
pub(crate) struct Case {
    /// A sentence in snake case, after the file it is in: `boot::uefi_boots_by_pxe`.
    pub(crate) name: String,
    /// What must be there.
    pub(crate) needs: Vec<Need>,
    /// Runs in a thread of its own, so that it may move into another network namespace.
    pub(crate) run: Box<dyn FnOnce() -> anyhow::Result<()> + Send>,
}

impl Case {
    /// Puts a case together.
    pub(crate) fn new(
        name: impl Into<String>,
        needs: &[Need],
        run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), needs: needs.to_vec(), run: Box::new(run) }
    }

    /// Makes it a trial. Without what it needs it is skipped with the reason, and in CI, where nothing may be
    /// lacking, it fails with it.
    pub(crate) fn into_trial(self, in_ci: bool, quiet: bool) -> Trial {
        let missing: Vec<String> = self.needs.iter().filter_map(Need::missing).collect();
        if missing.is_empty() {
            let name = self.name.clone();
            return Trial::test(self.name, move || {
                let ended = in_own_thread(self.run);
                crate::matrix::note(&name, ended.is_ok());
                ended
            });
        }
        let reason = missing.join("; ");
        if in_ci {
            return Trial::test(self.name, move || {
                Err(format!("in CI nothing may lack: {reason}").into())
            });
        }
        if !quiet {
            eprintln!("skipped {}: {reason}", self.name);
        }
        Trial::test(self.name, || Ok(())).with_ignored_flag(true)
    }
}

fn in_own_thread(run: Box<dyn FnOnce() -> anyhow::Result<()> + Send>) -> Result<(), Failed> {
    match std::thread::spawn(run).join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}").into()),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(text.unwrap_or("the case panicked").into())
        }
    }
}
