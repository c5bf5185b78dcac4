use kiln_types::{Digest, ImageRef};
use serde::{Deserialize, Serialize};

use crate::{BootId, MachineId};

number! {
    /// Number of an order, counted up in one server.
    OrderId
}

/// What a running machine is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Stop in order and start anew through the firmware.
    Reboot,
    /// Stop in order and switch off.
    PowerOff,
    /// Stop in order and start a version without the firmware.
    Kexec {
        /// The image it was chosen by.
        image: ImageRef,
        /// Digest of its manifest.
        version: Digest,
    },
    /// Send the last lines of what a service has printed.
    Logs {
        /// The service.
        name: String,
        /// How many lines.
        lines: u32,
    },
    /// Run a program to its end and send what it printed.
    Run {
        /// The service in whose container it runs; without one it runs beside the services.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// The program and its arguments.
        program: Vec<String>,
    },
}

impl Command {
    /// The longest text that is part of an order.
    pub const MAX_TEXT: usize = 4096;
    /// The most arguments that a program gets.
    pub const MAX_ARGUMENTS: usize = 64;
    /// The most lines of a log that are asked for.
    pub const MAX_LINES: u32 = 5000;

    /// Returns the word that listings show.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::PowerOff => "power-off",
            Self::Kexec { .. } => "kexec",
            Self::Logs { .. } => "logs",
            Self::Run { .. } => "run",
        }
    }

    /// Returns whether the system that carries it out ends with it.
    pub const fn ends_the_boot(&self) -> bool {
        matches!(self, Self::Reboot | Self::PowerOff | Self::Kexec { .. })
    }

    /// Says what is wrong with it, if something is.
    ///
    /// # Errors
    ///
    /// When a text or a number is outside its bounds.
    pub fn check(&self) -> Result<(), String> {
        let service = |name: &str| {
            let fits = (1..=128).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && !name.starts_with('.');
            let shown: String = name.chars().take(80).collect();
            fits.then_some(()).ok_or_else(|| format!("`{shown}` cannot be the name of a service"))
        };
        match self {
            Self::Reboot | Self::PowerOff | Self::Kexec { .. } => Ok(()),
            Self::Logs { name, lines } => {
                service(name)?;
                if (1..=Self::MAX_LINES).contains(lines) {
                    return Ok(());
                }
                Err(format!("{lines} lines cannot be asked for; ask for 1 to {}", Self::MAX_LINES))
            }
            Self::Run { service: inside, program } => {
                inside.as_deref().map_or(Ok(()), service)?;
                let size: usize = program.iter().map(String::len).sum();
                match program.first() {
                    None => Err("there is no program to run".to_owned()),
                    Some(first) if first.is_empty() || !first.starts_with('/') => {
                        let shown: String = first.chars().take(80).collect();
                        Err(format!("`{shown}` is not the whole path of a program, as /bin/ls"))
                    }
                    Some(_) if program.len() > Self::MAX_ARGUMENTS || size > Self::MAX_TEXT => {
                        Err(format!(
                            "the program has too many arguments: at most {} with {} bytes",
                            Self::MAX_ARGUMENTS,
                            Self::MAX_TEXT
                        ))
                    }
                    Some(_) if program.iter().any(|text| text.contains('\0')) => {
                        Err("an argument has a zero byte".to_owned())
                    }
                    Some(_) => Ok(()),
                }
            }
        }
    }
}

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OrderState {
    /// The machine has not asked for it yet.
    Queued,
    /// The machine was given it.
    Sent,
    /// The machine did it.
    Done,
    /// The machine could not do it; the answer says why.
    Failed,
    /// The machine did not ask for it in time.
    Expired,
}

impl OrderState {
    /// Returns whether nothing more comes.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Expired)
    }

    /// Returns the word that listings show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// An order that is given: an [`Order`] that has no number yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    /// The machine.
    pub machine: MachineId,
    /// Its name now.
    pub machine_name: String,
    /// The boot whose system is to do it.
    pub boot: BootId,
    /// What is to be done.
    pub command: Command,
    /// When it was given, in milliseconds since 1970.
    pub asked: i64,
    /// Who gave it.
    pub asked_by: String,
    /// When it is no longer handed out, in milliseconds since 1970.
    pub expires: i64,
}

/// What a running machine was told to do, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Order {
    /// Its number.
    pub id: OrderId,
    /// The machine.
    pub machine: MachineId,
    /// Name of the machine when it was given.
    pub machine_name: String,
    /// The boot whose system is to do it.
    pub boot: BootId,
    /// What is to be done.
    pub command: Command,
    /// When it was given, in milliseconds since 1970.
    pub asked: i64,
    /// Who gave it.
    pub asked_by: String,
    /// When it is no longer handed out, in milliseconds since 1970.
    pub expires: i64,
    /// How far it is.
    pub state: OrderState,
    /// When the machine was given it, in milliseconds since 1970.
    pub sent: Option<i64>,
    /// When it ended, in milliseconds since 1970.
    pub ended: Option<i64>,
    /// What the machine says about it.
    pub answer: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_outside_its_bounds_is_refused_with_what_to_do() {
        let run = |program: &[&str]| Command::Run {
            service: None,
            program: program.iter().map(ToString::to_string).collect(),
        };
        let logs = |name: &str, lines| Command::Logs { name: name.to_owned(), lines };
        for good in [Command::Reboot, logs("web", 1), run(&["/bin/ls", "-l"])] {
            assert_eq!(good.check(), Ok(()));
        }
        let many = vec!["/x"; 65];
        let long = "x".repeat(5000);
        for (bad, expected) in [
            (logs("../etc", 5), "cannot be the name"),
            (logs("", 5), "cannot be the name"),
            (logs(".", 5), "cannot be the name"),
            (logs("web", 0), "ask for 1 to 5000"),
            (logs("web", 5001), "ask for 1 to 5000"),
            (run(&[]), "no program"),
            (run(&["ls"]), "whole path"),
            (run(&many), "too many"),
            (run(&["/x", &long]), "too many"),
            (run(&["/x", "a\0b"]), "zero byte"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_command_is_written_as_its_kind_and_arguments() {
        let command = Command::Logs { name: "web".to_owned(), lines: 9 };
        let text = serde_json::to_string(&command).unwrap();
        assert_eq!(text, r#"{"kind":"logs","name":"web","lines":9}"#);
        assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command);
    }
}
