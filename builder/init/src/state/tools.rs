//! The programs of e2fsprogs that the image brings along: each runs as a child of ours, with its own loader and
//! libraries, and for a bounded time.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::process::{Children, End};

/// Where the builder puts them.
const FOLDER: &str = "/usr/lib/kiln/state";
/// How much of the output is kept.
const MOST: usize = 1024;
/// For the last words of a program that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs one of them to its end. Returns how that was, and the last thing that it has said.
pub(super) fn run(
    children: &Children,
    program: &str,
    arguments: &[&str],
    patience: Duration,
) -> io::Result<(End, String)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(format!("{FOLDER}/ld.so"));
    command
        .args(["--library-path", FOLDER])
        .arg(format!("{FOLDER}/{program}"))
        .args(arguments)
        .env_clear()
        .env("MKE2FS_CONFIG", format!("{FOLDER}/mke2fs.conf"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let (said, words) = channel();
    std::thread::Builder::new().name(program.to_owned()).stack_size(64 * 1024).spawn(
        move || {
            let _ = said.send(last_line(reader));
        },
    )?;
    let end = children.run(&mut command, patience);
    // Closes our ends of the pipe, so that the reader comes to an end.
    drop(command);
    let words = words.recv_timeout(LAST_WORDS).unwrap_or_default();
    Ok((end?, words))
}

/// Reads to the end, however much it is, and returns the last line that says something.
fn last_line(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; MOST];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        kept.extend(piece.iter().take(length));
        kept.drain(..kept.len().saturating_sub(MOST));
    }
    let text = String::from_utf8_lossy(&kept);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_kept_of_output_without_end() {
        let much = format!("{}\nlast one\n\n", "x".repeat(100_000));
        assert_eq!(last_line(much.as_bytes()), "last one");
        assert_eq!(last_line(&b""[..]), "");
        assert!(last_line(&[b'y'; 5000][..]).len() <= MOST);
    }
}
