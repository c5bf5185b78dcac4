//! `[images]` and `[[image]]`: what the server builds by itself.

use std::path::PathBuf;
use std::time::Duration;

use kiln_types::{Arch, ImageRef};
use serde::Deserialize;
use toml::Spanned;

use super::{Problems, parse_duration};
use crate::bake::{BakeSettings, BuildWhen, Policy, UpdatePolicy};

/// Where specifications are looked for unless told otherwise.
const DEFAULT_DIR: &str = "/etc/kiln/images";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireImages {
    dir: Option<PathBuf>,
    jobs: Option<Spanned<usize>>,
    timeout: Option<Spanned<String>>,
    build: Option<BuildWhen>,
    update: Option<UpdatePolicy>,
    every: Option<Spanned<String>>,
    arch: Option<Spanned<Vec<Arch>>>,
    release: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireImage {
    name: Spanned<String>,
    build: Option<BuildWhen>,
    update: Option<UpdatePolicy>,
    every: Option<Spanned<String>>,
    arch: Option<Spanned<Vec<Arch>>>,
    release: Option<bool>,
}

pub(super) fn check(
    all: WireImages,
    images: Vec<WireImage>,
    problems: &mut Problems,
) -> BakeSettings {
    let base = BakeSettings::default();
    let policy = Policy {
        release: all.release.unwrap_or(base.policy.release),
        ..policy(&base.policy, all.build, all.update, all.every, all.arch, problems)
    };
    let jobs = match all.jobs {
        Some(jobs) if !(1..=64).contains(jobs.get_ref()) => {
            problems.push((Some(jobs.span()), "`jobs` is a number from 1 to 64".to_owned()));
            base.jobs
        }
        jobs => jobs.map_or(base.jobs, Spanned::into_inner),
    };
    let mut settings = BakeSettings {
        dir: Some(all.dir.unwrap_or_else(|| DEFAULT_DIR.into())),
        jobs,
        timeout: duration(all.timeout, problems).unwrap_or(base.timeout),
        ..base
    };
    for image in images {
        let name = image.name.get_ref();
        let good = name.parse::<ImageRef>().is_ok_and(|parsed| parsed.name() == name);
        if !good {
            let text = format!("`{name}` is not the name of an image; write it without a channel");
            problems.push((Some(image.name.span()), text));
        } else if settings.images.contains_key(name) {
            problems.push((Some(image.name.span()), format!("image `{name}` is there twice")));
        }
        let policy = Policy {
            release: image.release.unwrap_or(policy.release),
            ..self::policy(&policy, image.build, image.update, image.every, image.arch, problems)
        };
        settings.images.insert(image.name.into_inner(), policy);
    }
    settings.policy = policy;
    settings
}

fn policy(
    base: &Policy,
    build: Option<BuildWhen>,
    update: Option<UpdatePolicy>,
    every: Option<Spanned<String>>,
    arch: Option<Spanned<Vec<Arch>>>,
    problems: &mut Problems,
) -> Policy {
    let arch = match arch {
        Some(arch) if arch.get_ref().is_empty() => {
            problems.push((Some(arch.span()), "`arch` names no architecture".to_owned()));
            base.arch.clone()
        }
        Some(arch) => arch.into_inner(),
        None => base.arch.clone(),
    };
    Policy {
        build: build.unwrap_or(base.build),
        update: update.unwrap_or(base.update),
        every: duration(every, problems).unwrap_or(base.every),
        arch,
        release: base.release,
    }
}

fn duration(text: Option<Spanned<String>>, problems: &mut Problems) -> Option<Duration> {
    let text = text?;
    parse_duration(text.get_ref())
        .map_err(|problem| problems.push((Some(text.span()), problem)))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Settings;
    use super::*;

    const SUBNET: &str =
        "[[subnet]]\nnetwork = \"10.0.0.0/24\"\ninterface = \"br0\"\naddress = \"10.0.0.1\"\n";

    fn bake(text: &str) -> Result<BakeSettings, String> {
        let settings = Settings::parse(Path::new("kiln.toml"), &format!("{text}{SUBNET}"));
        settings.map(|settings| settings.bake).map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_has_the_policy_of_all_where_it_says_nothing_else() {
        let text = "[images]\nbuild = \"on-boot\"\nevery = \"12h\"\narch = [\"arm64\"]\n\
                    [[image]]\nname = \"web\"\nrelease = true\nupdate = \"security\"\narch = [\"x86_64\", \"arm64\"]\n";
        let settings = bake(text).unwrap();
        assert_eq!(settings.dir.as_deref(), Some(Path::new("/etc/kiln/images")));
        let (other, web) = (settings.policy("other"), settings.policy("web"));
        assert_eq!((other.build, other.update), (BuildWhen::OnBoot, UpdatePolicy::Never));
        assert_eq!((web.build, web.update), (BuildWhen::OnBoot, UpdatePolicy::Security));
        assert_eq!((web.every, web.arch.len()), (Duration::from_secs(12 * 3600), 2));
        assert_eq!(other.arch, [Arch::Arm64]);
        assert!(web.release && !other.release);
    }

    #[test]
    fn what_is_wrong_about_images_is_told_with_its_place() {
        for (text, expected) in [
            ("[images]\njobs = 0\n", "kiln.toml:2:8: `jobs` is a number from 1 to 64"),
            ("[images]\narch = []\n", "kiln.toml:2:8: `arch` names no architecture"),
            ("[images]\nevery = \"1\"\n", "kiln.toml:2:9: `1` is not a time"),
            ("[images]\nbuild = \"never\"\n", "kiln.toml:2:9: unknown variant `never`"),
            ("[[image]]\nname = \"web:edge\"\n", "kiln.toml:2:8: `web:edge` is not the name"),
            (
                "[[image]]\nname = \"a\"\n[[image]]\nname = \"a\"\n",
                "kiln.toml:4:8: image `a` is there",
            ),
        ] {
            let error = bake(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
