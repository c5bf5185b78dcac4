//! Bad input on the command line: exit code, place and reason.

use std::fs;

use anyhow::ensure;

use crate::rig::{Case, Need, kiln};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("command::bad_settings_name_file_line_and_column", &[Need::Program], || {
            let wrong = "[[subnet]]\nnetwork = \"10.0.0.7/24\"\ninterface = \"br0\"\n\
                         address = \"10.0.0.1\"\n";
            bad("kiln.toml", wrong, &["serve", "--config"], 64, "kiln.toml:2:11: ")
        }),
        Case::new("command::settings_that_are_no_toml_are_refused", &[Need::Program], || {
            bad("kiln.toml", "[[subnet]\n", &["serve", "--config"], 64, "kiln.toml:1:")
        }),
        Case::new("command::a_bad_image_names_file_line_and_column", &[Need::Program], || {
            let wrong = "kernel:\n  deb: linux-image-cloud-amd64\ninit: [kiln]\nservcies: []\n";
            bad("web.yml", wrong, &["build"], 64, "web.yml:4:1")
        }),
        Case::new("command::an_image_that_is_no_yaml_is_refused", &[Need::Program], || {
            bad("web.yml", "kernel: [\n", &["build"], 64, "web.yml:")
        }),
        Case::new("command::an_unknown_word_is_a_usage_error", &[Need::Program], || {
            let finished = kiln(&["machines", "lits"])?;
            ensure!(finished.code == Some(2), "it ended with {:?}", finished.code);
            ensure!(finished.stderr.contains("machines"), "it said {}", finished.stderr);
            Ok(())
        }),
        Case::new("command::no_server_is_one_clear_sentence", &[Need::Program], || {
            let finished = kiln(&["machine", "list", "--socket", "/nonexistent/kiln.sock"])?;
            ensure!(finished.code == Some(1), "it ended with {:?}", finished.code);
            ensure!(
                finished.stderr.contains("/nonexistent/kiln.sock"),
                "it said {}",
                finished.stderr
            );
            ensure!(finished.stdout.is_empty(), "it printed {}", finished.stdout);
            Ok(())
        }),
    ]
}

/// Gives a bad file to a command and checks how it ends and that it names the place.
fn bad(name: &str, text: &str, command: &[&str], code: i32, place: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(name);
    fs::write(&path, text)?;
    let path = path.display().to_string();
    let store = folder.path().join("store").display().to_string();
    let mut arguments = command.to_vec();
    arguments.push(&path);
    if command.contains(&"build") {
        arguments.extend(["--store", &store]);
    }
    let finished = kiln(&arguments)?;
    ensure!(
        finished.code == Some(code),
        "it ended with {:?} and said {}",
        finished.code,
        finished.stderr
    );
    ensure!(finished.stderr.contains(place), "`{place}` is not in {}", finished.stderr);
    ensure!(finished.stdout.is_empty(), "it printed {}", finished.stdout);
    Ok(())
}
