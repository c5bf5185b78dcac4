//! A machine fetches what it is told of itself with curl, by its MAC and by the token of its boot.

use std::cell::RefCell;
use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use kiln::lab::{BRIDGE, Lab, Neighbour};
use kiln_inventory::NewMachine;
use kiln_types::Mac;
use serde_json::{Value, json};

use crate::rig::{Case, Need, Scene, loaders};

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Root, Need::Tool("curl", "curl")];
    vec![Case::new("metadata::a_machine_gets_it_and_a_mac_alone_no_secret", &needs, fetches)]
}

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);

fn fetches() -> anyhow::Result<()> {
    loaders()?;
    let metadata = json!({"role": "db", "secrets": {"password": "geheim"}});
    let metadata = metadata.as_object().cloned().unwrap_or_default();
    let machine = NewMachine { metadata, ..NewMachine::new("n1", [MAC]) };
    let host = RefCell::new(None);
    let network = |lab: &mut Lab| {
        let dir = lab.directory().join("metadata");
        fs::create_dir_all(dir.join("machines/n1"))?;
        fs::write(dir.join("user-data"), "for all\n")?;
        fs::write(dir.join("machines/n1/user-data"), "#cloud-config\nrole: {{ metadata.role }}\n")?;
        fs::write(dir.join("vendor-data"), "password: {{ secrets.password }}\n")?;
        let ignition = r#"{"ignition": {"version": "3.4.0"}, "name": {{ machine.name | tojson }}}"#;
        fs::write(dir.join("config.ign"), ignition)?;
        *host.borrow_mut() = Some(lab.add_neighbour(&[(BRIDGE, "10.77.0.50/24")])?);
        Ok(())
    };
    Scene::play_among(
        network,
        |site| site,
        vec![machine],
        async |scene| {
            let host = host.borrow_mut().take().context("no neighbour")?;
            let mac = MAC.to_string();
            for (path, status, says) in [
                (format!("nocloud/{mac}/user-data"), 200, "#cloud-config\nrole: db\n"),
                (
                    format!("nocloud/{mac}/meta-data"),
                    200,
                    "instance-id: \"n1-none\"\nlocal-hostname: \"n1\"\n",
                ),
                (format!("metadata/{mac}/role"), 200, "db"),
                (format!("nocloud/{mac}/vendor-data"), 403, "token of its boot"),
                (format!("metadata/{mac}/secrets/password"), 404, "not found"),
                ("metadata/boot/1/secrets/password".to_owned(), 403, ""),
            ] {
                let (is, body) = curl(&host, &path)?;
                ensure!(is == status, "{path}: {is} {body}");
                ensure!(body.contains(says) && !body.contains("geheim"), "{path}: {body}");
            }
            let (_, ignition) = curl(&host, &format!("ignition/{mac}"))?;
            let ignition: Value = serde_json::from_str(&ignition)?;
            ensure!(ignition["name"] == "n1", "it is {ignition}");
            Ok(scene)
        },
    )
}

/// Fetches a path from the server, on another host, and returns the status and the body.
fn curl(host: &Neighbour, path: &str) -> anyhow::Result<(u16, String)> {
    let url = format!("http://10.77.0.1:8080/{path}");
    let mut command: Command = host.command("curl");
    command.args(["-sS", "--max-time", "60", "-w", "\n%{http_code}", &url]);
    let output = command.output().context("cannot run curl")?;
    let text = String::from_utf8(output.stdout)?;
    let (body, status) = text.rsplit_once('\n').context("curl printed nothing")?;
    Ok((status.parse()?, body.to_owned()))
}
