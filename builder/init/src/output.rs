//! The two pipes from a container: what it prints, and the word that its own program runs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Is called once when the container's own program runs. Must not block.
pub(crate) type Runs = Box<dyn FnOnce() + Send>;

/// Reads what a container prints; on the way hears when its program runs.
pub(crate) struct Output {
    printed: File,
    report: Option<(File, Runs)>,
}

impl Output {
    pub(crate) fn new(printed: File, report: File, runs: Runs) -> Self {
        Self { printed, report: Some((report, runs)) }
    }

    /// Waits until something is printed, or its end; hears the report meanwhile.
    fn wait(&mut self) {
        while let Some((mut report, runs)) = self.report.take() {
            let mut polled =
                [&report, &self.printed].map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN));
            let result = poll(&mut polled, PollTimeout::NONE);
            let [said, printed] =
                polled.map(|file| file.revents().is_some_and(|events| !events.is_empty()));
            match result {
                Ok(_) if said => {
                    if report.read(&mut [0]).is_ok_and(|count| count == 1) {
                        runs();
                    }
                }
                Ok(_) | Err(Errno::EINTR) => {
                    self.report = Some((report, runs));
                    if printed {
                        return;
                    }
                }
                // Then nobody will know, but the output is more important.
                Err(_) => {}
            }
        }
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait();
        self.printed.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::sync::mpsc::channel;

    use super::*;

    fn file(end: impl Into<OwnedFd>) -> File {
        File::from(end.into())
    }

    #[test]
    fn what_is_printed_before_and_after_the_word_is_read_and_the_word_is_heard_once() {
        let (printed, mut prints) = io::pipe().unwrap();
        let (report, mut says) = io::pipe().unwrap();
        let (heard, hears) = channel();
        let runs = Box::new(move || heard.send(()).unwrap());
        let mut output = Output::new(file(printed), file(report), runs);
        let mut buffer = [0; 16];
        prints.write_all(b"before").unwrap();
        assert_eq!(output.read(&mut buffer).unwrap(), 6);
        assert!(hears.try_recv().is_err());
        says.write_all(b"r").unwrap();
        prints.write_all(b"after").unwrap();
        assert_eq!(output.read(&mut buffer).unwrap(), 5);
        assert_eq!(hears.try_recv(), Ok(()));
        drop(prints);
        assert_eq!(output.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn one_whose_program_never_runs_is_read_to_its_end() {
        let (printed, mut prints) = io::pipe().unwrap();
        let (report, says) = io::pipe().unwrap();
        let mut output =
            Output::new(file(printed), file(report), Box::new(|| panic!("it does not run")));
        drop(says);
        prints.write_all(b"cannot").unwrap();
        drop(prints);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "cannot");
    }
}
