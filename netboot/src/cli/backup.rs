//! `kiln backup`.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use kiln_builder::durable::{self, folder_of};
use kiln_inventory::{BackupError, BackupFile, BackupSummary, Store, verify_backup};
use tempfile::NamedTempFile;

use super::{ConfigArg, Failure, Output, chain, print_document};
use crate::dhcp::journal;
use crate::secrets::{SecretError, check_keys};
use crate::serve::take_data;
use crate::settings::Settings;

/// Backups of the inventory: create, verify, restore
///
/// A backup holds machines, boots, leases and the log of changes, as lines of JSON. It is the same from SQLite and from
/// PostgreSQL, and restores into either. Images are not in it, and the keys of the site only when they are asked for.
/// The key of secrets, /var/lib/kiln/secrets.key, is never in it: keep a copy of it elsewhere, for without it the secrets
/// of a backup cannot be read, and who has both reads them all.
#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Write everything that the inventory holds to a file, while the server runs
    Create {
        /// The file, which may not be there yet; `-` is the standard output
        file: PathBuf,
        /// Put the keys of the site into it too, though not the key of secrets (secrets.key): who has the file can then
        /// sign what machines boot
        #[arg(long)]
        keys: bool,
        #[command(flatten)]
        config: ConfigArg,
        /// How to print the answer
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Output,
    },
    /// Read a backup to its end and say what is in it
    Verify {
        /// The file; `-` is the standard input
        file: PathBuf,
        /// How to print the answer
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Output,
    },
    /// Take everything from a backup; the server may not run
    Restore {
        /// The file
        file: PathBuf,
        /// Replace what the inventory holds, and keys that are there
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        config: ConfigArg,
        /// How to print the answer
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Output,
    },
}

pub(super) async fn run(args: BackupArgs) -> Result<(), Failure> {
    match args.command {
        BackupCommand::Create { file, keys, config, output } => {
            let settings = settings(&config)?;
            if file != Path::new("-") {
                let made = create(&file, keys, &settings).await?;
                return show(output, "written to", &file, &made);
            }
            if io::stdout().is_terminal() {
                let error =
                    anyhow!("a backup is not for a terminal; name a file, or a pipe behind `-`");
                return Err(Failure::new(Failure::USAGE, error));
            }
            write(&mut BufWriter::new(io::stdout()), keys, &settings).await.map(drop)
        }
        BackupCommand::Verify { file, output } => {
            let found = match file == Path::new("-") {
                true => verify_backup(&mut BufReader::new(io::stdin())),
                false => verify_backup(&mut open(&file)?),
            };
            let (found, _) = found.map_err(|error| of(&file, error))?;
            show(output, "whole:", &file, &found)
        }
        BackupCommand::Restore { file, yes, config, output } => {
            let settings = settings(&config)?;
            let (restored, keys) = restore(&file, yes, &settings).await?;
            show(output, "restored from", &file, &restored)?;
            if let Err(lost) = keys {
                eprintln!("kiln: warning: {}", chain(&lost));
            }
            Ok(())
        }
    }
}

fn settings(config: &ConfigArg) -> Result<Settings, Failure> {
    Settings::read(&config.config).map_err(|error| Failure::new(Failure::CONFIG, error))
}

async fn create(file: &Path, keys: bool, settings: &Settings) -> Result<BackupSummary, Failure> {
    if file.exists() {
        let error = anyhow!("{} is there already; name another file", file.display());
        return Err(Failure::new(Failure::CONFLICT, error));
    }
    // Whole or not there, and nobody else's to read.
    let failed = || format!("cannot write {}", file.display());
    let named = NamedTempFile::new_in(folder_of(file)).with_context(failed)?;
    let mut to = BufWriter::new(named);
    let made = write(&mut to, keys, settings).await?;
    let written = to.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
    durable::persist(written, file, 0o600).with_context(failed)?;
    Ok(made)
}

/// Writes everything that the inventory holds.
async fn write(
    to: &mut (dyn Write + Send),
    keys: bool,
    settings: &Settings,
) -> Result<BackupSummary, Failure> {
    let database = settings.database();
    if database.file().is_some_and(|path| !path.exists()) {
        return Err(Failure::new(Failure::NOT_FOUND, anyhow!("there is no inventory {database}")));
    }
    // Before the database is read: what is taken into it meanwhile is then in one of the two.
    let leases = journal::peek(&settings.data_dir)?;
    let keys = if keys { key_files(settings)? } else { Vec::new() };
    let inventory = Store::connect(&database).await?;
    let made = inventory.back_up(to, &leases, &keys).await;
    inventory.close().await;
    Ok(made?)
}

/// Returns what was restored, and whether the keys are here with which its secrets are sealed.
async fn restore(
    file: &Path,
    yes: bool,
    settings: &Settings,
) -> Result<(BackupSummary, Result<(), SecretError>), Failure> {
    if file == Path::new("-") {
        let error =
            anyhow!("a backup is read twice, and the standard input only once; name a file");
        return Err(Failure::new(Failure::USAGE, error));
    }
    // Nothing is touched before the whole file is known to be good, and its keys to have a place.
    let (_, files) = verify_backup(&mut open(file)?).map_err(|error| of(file, error))?;
    let keys_dir = settings.trust.keys.path();
    let places: Vec<(PathBuf, Vec<u8>)> = files
        .into_iter()
        .map(|(name, content)| Ok((place_of_key(keys_dir, &name, &content, yes)?, content)))
        .collect::<Result<_, Failure>>()?;
    let _lock = take_data(&settings.data_dir)?;
    let inventory = Store::connect(&settings.database()).await?;
    let restored = inventory.restore(&mut open(file)?, yes).await;
    let keys = check_keys(&settings.secrets_key, &inventory).await;
    inventory.close().await;
    let summary = restored.map_err(|error| of(file, error))?;
    // What it says of leases is of before.
    journal::set_aside(&settings.data_dir)?;
    for (path, content) in places {
        put_key(&path, &content)?;
    }
    Ok((summary, keys))
}

fn open(file: &Path) -> Result<BufReader<File>, Failure> {
    let opened = File::open(file);
    Ok(BufReader::new(opened.with_context(|| format!("cannot open {}", file.display()))?))
}

fn of(file: &Path, error: BackupError) -> Failure {
    match error {
        BackupError::NotEmpty(_) => {
            Failure::new(Failure::CONFLICT, anyhow!("{error}; say --yes to replace them"))
        }
        error => anyhow::Error::new(error).context(file.display().to_string()).into(),
    }
}

/// Reads the files of the folder of keys, and those in its folders. The key of secrets stays behind, wherever it is: with
/// it the backup would tell them.
fn key_files(settings: &Settings) -> anyhow::Result<Vec<BackupFile>> {
    let dir = settings.trust.keys.path();
    let of_secrets = settings.secrets_key.canonicalize().ok();
    let mut files = Vec::new();
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let path = dir.join(&folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        for entry in entries {
            let entry = entry?;
            let name = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < 4 {
                folders.push((name, depth + 1));
            } else if kind.is_file() && entry.path().canonicalize().ok() != of_secrets {
                let content = fs::read(entry.path());
                let content =
                    content.with_context(|| format!("cannot read {}", entry.path().display()))?;
                files.push((name.to_string_lossy().into_owned(), content));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Returns where a key of a backup goes: into the folder of keys, and nowhere else.
fn place_of_key(dir: &Path, name: &str, content: &[u8], replace: bool) -> Result<PathBuf, Failure> {
    let name = Path::new(name);
    if name.as_os_str().is_empty()
        || !name.components().all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(anyhow!(
            "the backup has a key `{}`, which is no name of a key",
            name.display()
        )
        .into());
    }
    let path = dir.join(name);
    if path.exists() && !replace && !is_there(&path, content) {
        let error = anyhow!("there is another key {}; say --yes to replace it", path.display());
        return Err(Failure::new(Failure::CONFLICT, error));
    }
    Ok(path)
}

fn is_there(path: &Path, content: &[u8]) -> bool {
    fs::read(path).is_ok_and(|there| there == content)
}

fn put_key(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if is_there(path, content) {
        return Ok(());
    }
    let write = || {
        let mut folders = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(folders.recursive(true), 0o700);
        folders.create(folder_of(path))?;
        durable::replace(path, content, 0o600)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn show(output: Output, what: &str, file: &Path, summary: &BackupSummary) -> Result<(), Failure> {
    if !output.is_table() {
        return print_document(output, summary);
    }
    println!("{what} {}", file.display());
    for (table, rows) in summary.rows.iter().filter(|(_, rows)| **rows > 0) {
        println!("{rows:>9} {}", table.replace('_', " "));
    }
    if summary.leases > 0 {
        println!("{:>9} leases of the journal", summary.leases);
    }
    if !summary.files.is_empty() {
        println!("{:>9} keys", summary.files.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kiln_inventory::{Lease, NewMachine};
    use kiln_types::Mac;

    use super::*;
    use crate::dhcp::LeaseLog as _;
    use crate::secrets::Secrets;

    fn settings(dir: &Path) -> Settings {
        let text = format!(
            "[server]\ndata-dir = \"{}\"\n[[subnet]]\nnetwork = \"10.0.0.0/24\"\n\
             interface = \"lo\"\naddress = \"10.0.0.1\"\ndhcp = \"off\"\n",
            dir.display()
        );
        Settings::parse(Path::new("kiln.toml"), &text).unwrap()
    }

    #[tokio::test]
    async fn an_empty_server_is_restored_to_what_another_was_with_keys_where_they_were_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (from, into) = (settings(&at("from")), settings(&at("into")));
        fs::create_dir_all(from.trust.keys.path().join("trusted")).unwrap();
        fs::write(from.trust.keys.path().join("site.key"), "geheim").unwrap();
        fs::write(from.trust.keys.path().join("trusted/a.pub"), "public").unwrap();
        let store = Store::connect(&from.database()).await.unwrap();
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        store.add_machine(&NewMachine::new("n1", [mac])).await.unwrap();
        // A lease that only the journal has, while the server runs.
        let lease = Lease { address: [10, 0, 0, 9].into(), mac, expires: 77, hostname: None };
        let (_, mut journal, _folder) = journal::open(&from.data_dir).unwrap();
        journal.commit(std::slice::from_ref(&lease)).unwrap();
        let _running = take_data(&from.data_dir).unwrap();

        create(&at("plain"), false, &from).await.unwrap();
        assert!(!fs::read_to_string(at("plain")).unwrap().contains("site.key"));
        let again = create(&at("plain"), false, &from).await.unwrap_err();
        assert_eq!(again.code(), Failure::CONFLICT);
        let made = create(&at("full"), true, &from).await.unwrap();
        assert_eq!(made.files, ["site.key", "trusted/a.pub"]);
        let mut piped = Vec::new();
        let same = write(&mut piped, true, &from).await.unwrap();
        assert_eq!((same.rows, same.files), (made.rows.clone(), made.files.clone()));
        assert_eq!(verify_backup(&mut &piped[..]).unwrap().0.rows, made.rows);
        let input = restore(Path::new("-"), true, &into).await.unwrap_err();
        assert_eq!(input.code(), Failure::USAGE);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(at("full")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);

        let (restored, keys) = restore(&at("full"), false, &into).await.unwrap();
        assert_eq!(restored, made);
        keys.unwrap();
        let restored = Store::connect(&into.database()).await.unwrap();
        assert_eq!(restored.machines().await.unwrap(), store.machines().await.unwrap());
        assert_eq!(
            restored.changes_since(0, 9).await.unwrap(),
            store.changes_since(0, 9).await.unwrap()
        );
        assert_eq!(restored.leases().await.unwrap(), [lease]);
        restored.close().await;
        assert_eq!(fs::read(into.trust.keys.path().join("site.key")).unwrap(), b"geheim");

        let full = restore(&at("full"), false, &into).await.unwrap_err();
        assert_eq!(full.code(), Failure::CONFLICT);
        assert!(full.to_string().ends_with("say --yes to replace them"), "{full}");
        restore(&at("full"), true, &into).await.unwrap().1.unwrap();
        let running = restore(&at("full"), true, &from).await.unwrap_err();
        assert!(running.to_string().contains("another `kiln serve` uses"), "{running}");
        fs::write(at("cut"), &fs::read(at("full")).unwrap()[..300]).unwrap();
        let cut = restore(&at("cut"), true, &into).await.unwrap_err();
        assert!(cut.to_string().contains("no whole backup"), "{cut}");
    }

    #[tokio::test]
    async fn a_restore_says_that_the_key_of_its_secrets_was_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (from, into) = (settings(&at("from")), settings(&at("into")));
        fs::create_dir_all(&from.data_dir).unwrap();
        let secrets = std::sync::Arc::new(Secrets::open(&from.secrets_key).unwrap());
        let store = Store::connect(&from.database()).await.unwrap().sealing(secrets);
        let mut machine = NewMachine::new("n1", [Mac::new([2, 0, 0, 0, 0, 1])]);
        machine.metadata.insert("secrets".to_owned(), serde_json::json!({"p": "geheim"}));
        store.add_machine(&machine).await.unwrap();
        create(&at("full"), true, &from).await.unwrap();
        let (_, keys) = restore(&at("full"), false, &into).await.unwrap();
        let lost = keys.unwrap_err().to_string();
        assert!(lost.contains(&into.secrets_key.display().to_string()), "{lost}");
        fs::copy(&from.secrets_key, &into.secrets_key).unwrap();
        restore(&at("full"), true, &into).await.unwrap().1.unwrap();
    }

    #[test]
    fn a_key_of_a_backup_goes_nowhere_but_into_the_folder_of_keys() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        for name in ["", "/etc/passwd", "../out", "a/../../out", "."] {
            place_of_key(&keys, name, b"x", true).unwrap_err();
        }
        for _ in 0..2 {
            let place = place_of_key(&keys, "trusted/a", b"x", false).unwrap();
            put_key(&place, b"x").unwrap();
        }
        place_of_key(&keys, "trusted/a", b"y", false).unwrap_err();
        assert_eq!(fs::read(keys.join("trusted/a")).unwrap(), b"x");
        let place = place_of_key(&keys, "trusted/a", b"y", true).unwrap();
        put_key(&place, b"y").unwrap();
        assert_eq!(fs::read(keys.join("trusted/a")).unwrap(), b"y");
    }

    #[tokio::test]
    async fn nothing_is_restored_where_another_key_would_be_lost_and_the_key_of_secrets_stays_behind()
     {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (mut from, into) = (settings(&at("from")), settings(&at("into")));
        let keys = from.trust.keys.path().to_owned();
        from.secrets_key = keys.join("secrets.key");
        fs::create_dir_all(&keys).unwrap();
        fs::write(keys.join("site.key"), "geheim").unwrap();
        fs::write(&from.secrets_key, "geheimer").unwrap();
        let store = Store::connect(&from.database()).await.unwrap();
        store.add_machine(&NewMachine::new("n1", [Mac::new([2, 0, 0, 0, 0, 1])])).await.unwrap();
        let made = create(&at("full"), true, &from).await.unwrap();
        assert_eq!(made.files, ["site.key"]);

        let other = into.trust.keys.path().join("site.key");
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::write(&other, "its own").unwrap();
        let error = restore(&at("full"), false, &into).await.unwrap_err();
        assert_eq!(error.code(), Failure::CONFLICT, "{error}");
        let store = Store::connect(&into.database()).await.unwrap();
        assert_eq!(store.machines().await.unwrap(), []);
        store.close().await;
        restore(&at("full"), true, &into).await.unwrap().1.unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"geheim");
    }
}
