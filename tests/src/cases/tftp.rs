//! TFTP clients that people run.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use kiln::lab::{BRIDGE, Lab, Neighbour};

use crate::rig::{Case, Need, Serving};

/// No whole number of blocks of any length, more than 65535 of 200 bytes, and not too long for a loader.
const LENGTH: usize = 15_000_123;

pub(super) fn cases() -> Vec<Case> {
    let needs = [
        Need::Root,
        Need::Program,
        Need::Tool("tftp", "tftp-hpa"),
        Need::Tool("atftp", "atftp"),
        Need::Tool("curl", "curl"),
    ];
    vec![Case::new(
        "tftp::clients_of_three_makers_fetch_whole_files_and_are_told_errors",
        &needs,
        play,
    )]
}

fn play() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("tftp-").tempdir()?;
    let mut lab = Lab::enter(folder.path())?;
    let client = lab.add_neighbour(&[(BRIDGE, "10.77.0.2/24")])?;
    fs::create_dir_all(folder.path().join("loaders"))?;
    let large: Vec<u8> = (0..LENGTH).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect();
    fs::write(folder.path().join("loaders/ipxe-amd64.efi"), &large)?;
    let server = Serving::start(
        folder.path(),
        &format!("network = \"10.77.0.0/24\"\ninterface = \"{BRIDGE}\"\naddress = \"10.77.0.1\"\n"),
    )?;
    server.is_ready()?;
    let play = Play { client, folder: folder.path(), large };
    play.all().with_context(|| format!("the server says: {}", server.log().unwrap_or_default()))
}

struct Play<'a> {
    client: Neighbour,
    folder: &'a Path,
    large: Vec<u8>,
}

impl Play<'_> {
    fn all(&self) -> anyhow::Result<()> {
        let hpa =
            |name: &str| self.run("tftp", &["-m", "binary", "10.77.0.1", "-c", "get", name, "got"]);
        // Blocks of 512 bytes and no options.
        hpa("ipxe/ipxe-amd64.efi")?;
        self.is_whole("tftp-hpa")?;
        ensure!(
            hpa("ipxe/none.efi")?.contains("no such file"),
            "tftp-hpa is not told what is wrong"
        );
        for options in [
            &[][..],
            // Past block 65535.
            &["--option", "blksize 200"],
            &["--option", "blksize 1428", "--option", "windowsize 16", "--option", "tsize 0"],
        ] {
            let get = ["--get", "-r", "ipxe/ipxe-amd64.efi", "-l", "got"];
            self.run("atftp", &[options, &get, &["10.77.0.1"]].concat())?;
            self.is_whole(&format!("atftp {options:?}"))?;
        }
        let url = "tftp://10.77.0.1/ipxe/ipxe-amd64.efi";
        self.run("curl", &["-sS", "--tftp-blksize", "1468", "-o", "got", url])?;
        self.is_whole("curl")
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self
            .client
            .command(program)
            .args(arguments)
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).to_lowercase())
    }

    /// Looks whether the file is there, and takes it away.
    fn is_whole(&self, who: &str) -> anyhow::Result<()> {
        let path = self.folder.join("got");
        let got = fs::read(&path).with_context(|| format!("{who} got nothing"))?;
        ensure!(got == self.large, "{who} got {} bytes, not those that were sent", got.len());
        Ok(fs::remove_file(path)?)
    }
}
