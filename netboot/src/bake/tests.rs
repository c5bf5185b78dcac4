use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kiln_builder::store::Store as Artifacts;
use kiln_inventory::{
    Asker, Firmware, Group, Machine, MachineId, NewMachine, Settings, Snapshot, Store,
    UnknownMachines, decide,
};
use kiln_types::Mac;

use super::*;

/// A server's baker on a folder, with a program in place of `kiln` that fails when the specification says so.
struct Rig {
    dir: tempfile::TempDir,
    view: Arc<View>,
    baker: Baker,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

const PROGRAM: &str = "#!/bin/sh
echo '{\"task\":\"packing\",\"done\":1,\"total\":4}' >&2
while [ -e $DIR/wait ]; do sleep 0.05; done
echo x >> $DIR/runs
if grep -q broken \"$2\"; then echo \"kiln: $2:1:1: it is broken\" >&2; exit 64; fi
echo '{\"version\":\"sha256:'$(sha256sum < \"$2\" | cut -c-64)'\"}'
";

impl Rig {
    async fn start(build: BuildWhen, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("images")).unwrap();
        let program = PROGRAM.replace("$DIR", &dir.path().display().to_string());
        std::fs::write(path("kiln"), program).unwrap();
        std::fs::set_permissions(path("kiln"), std::fs::Permissions::from_mode(0o755)).unwrap();
        prepare(dir.path());
        let inventory = Store::open(&path("inventory.db")).await.unwrap();
        let artifacts = Artifacts::open(path("store")).unwrap();
        let view = View::load(inventory, artifacts, UnknownMachines::Hold, None).await.unwrap();
        let view = Arc::new(view);
        let arch = vec![Arch::X86_64];
        let settings = BakeSettings {
            dir: Some(path("images")),
            program: Some(path("kiln")),
            policy: Policy { build, arch, ..Policy::default() },
            ..BakeSettings::default()
        };
        let config = BakerConfig { settings, ..BakerConfig::idle(dir.path()) };
        let stop = CancellationToken::new();
        let (baker, task) = Baker::start(config, view.clone(), stop.clone());
        Self { dir, view, baker, task, stop }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    async fn until(&self, what: impl Fn(&ArchState) -> bool) -> ArchState {
        for _ in 0..1200 {
            let state = self.baker.state("web");
            if let Some(arch) = state.and_then(|mut state| state.arches.remove(&Arch::X86_64))
                && what(&arch)
            {
                return arch;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("it never comes: {:?}", self.baker.states());
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.dir.path().join("runs")).unwrap_or_default().lines().count()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn an_edit_is_built_and_a_broken_one_leaves_what_was_built() {
    let rig = Rig::start(BuildWhen::OnChange, |dir| {
        std::fs::write(dir.join("images/web.yml"), "one").unwrap();
    })
    .await;
    let built = rig.until(|it| it.status == Status::Built).await.version;
    assert!(built.is_some());
    rig.write("images/web.yml", "broken");
    let failed = rig.until(|it| it.status == Status::Failed).await;
    assert!(failed.error.unwrap().ends_with("web.yml:1:1: it is broken"));
    assert_eq!(failed.version, built);
    rig.write("images/web.yml", "two");
    let mended = rig.until(|it| it.status == Status::Built).await;
    assert!(mended.version != built && mended.error.is_none());
    let (lines, last) = rig.baker.log("web", 0, Duration::ZERO).await;
    assert!(lines.iter().any(|line| line.text.contains("failed: ")), "{lines:?}");
    assert_eq!(last, rig.baker.state("web").unwrap().log);
    rig.end().await;
}

/// A machine that says no image itself, because its group does.
fn by_its_group() -> (Decision, Sighting) {
    let mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
    let spec = NewMachine::new("n1", [mac]);
    let machine = Arc::new(Machine { id: MachineId(1), revision: 1, spec });
    let settings = Settings { image: "web".parse().ok(), ..Settings::default() };
    let selector = "*".parse().unwrap();
    let group = Group { name: "all".to_owned(), selector, priority: 0, settings };
    let images = BTreeMap::default();
    let snapshot = Snapshot::with_groups(vec![machine], &[group], images, UnknownMachines::Ignore);
    let firmware = Some(Firmware::UefiX64);
    let sighting = Sighting { mac, asker: Asker::Firmware, firmware, uuid: None };
    (decide(&snapshot, &sighting), sighting)
}

#[tokio::test]
async fn many_machines_that_ask_at_once_share_one_build_and_see_how_far_it_is() {
    let rig = Rig::start(BuildWhen::OnBoot, |dir| {
        std::fs::write(dir.join("images/web.yml"), "one").unwrap();
        std::fs::write(dir.join("wait"), "").unwrap();
    })
    .await;
    rig.until(|it| it.status == Status::Waiting).await;
    let (decision, sighting) = by_its_group();
    for _ in 0..100 {
        rig.baker.hears(&decision, &sighting);
    }
    rig.until(|it| it.progress.as_deref() == Some("packing: 25 % of 1 MiB")).await;
    assert_eq!(rig.baker.progress("web").unwrap(), "packing: 25 % of 1 MiB");
    let bake = || rig.view.snapshot().bakes["web"][&Arch::X86_64].clone();
    rig.until(|_| bake() == kiln_inventory::Bake::Building).await;
    std::fs::remove_file(rig.dir.path().join("wait")).unwrap();
    rig.until(|it| it.status == Status::Built).await;
    assert_eq!(rig.runs(), 1);
    rig.until(|_| rig.view.snapshot().bakes.is_empty()).await;
    rig.end().await;
}

#[tokio::test]
async fn a_request_builds_what_is_left_to_people_and_a_server_that_stops_ends_its_builds() {
    let rig = Rig::start(BuildWhen::Manual, |dir| {
        std::fs::write(dir.join("images/web.yml"), "one").unwrap();
        std::fs::write(dir.join("wait"), "").unwrap();
    })
    .await;
    rig.until(|it| it.status == Status::Idle).await;
    assert!(!rig.baker.request("gone", None).await);
    assert!(rig.baker.request("web", None).await);
    rig.until(|it| it.status == Status::Building).await;
    let (dir, runs) = (rig.dir.path().to_owned(), rig.runs());
    assert_eq!(runs, 0);
    // The build would wait for ever.
    tokio::time::timeout(Duration::from_secs(5), rig.end()).await.unwrap();
    assert!(!dir.join("runs").exists());
}
