//! The thread of one interface: waits at its sockets and for its times.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::interface;
use super::ipv4::Ipv4;
use super::ipv6::Ipv6;
use super::netlink::News;
use super::port::Port;
use crate::clock::uptime;
use crate::console::say;

/// Many cards need some seconds to find out that there is a cable.
const LINK_COMES_UP: Duration = Duration::from_secs(5);
/// Where the kernel tells no news, it is looked for them.
const WITHOUT_NEWS: Duration = Duration::from_secs(2);

struct Worker {
    port: Port,
    news: Option<News>,
    ipv4: Option<Ipv4>,
    ipv6: Option<Ipv6>,
    has_link: bool,
    /// When a person is told that there is no link.
    complain: Option<Duration>,
}

/// Starts the thread of an interface. It ends when the interface is gone.
pub(super) fn start(port: Port) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(port.name.clone())
        .stack_size(128 * 1024)
        .spawn(move || Worker::new(port).run())
        .map(|_| ())
}

impl Worker {
    fn new(mut port: Port) -> Self {
        // Before the interface is on, so that nothing is missed.
        let news = News::open();
        if let Err(error) = &news {
            port.say_once("the kernel tells no news", error);
        }
        let ipv6 = Ipv6::new(&port);
        port.set_up();
        Self {
            news: news.ok(),
            ipv4: port.settings.dhcp4.then(|| Ipv4::new(port.known)),
            ipv6,
            has_link: false,
            complain: Some(uptime() + LINK_COMES_UP),
            port,
        }
    }

    fn run(mut self) {
        loop {
            if if_nametoindex(self.port.name.as_str()) != Ok(self.port.index) {
                return self.end();
            }
            self.look_at_link();
            if let Some(ipv4) = &mut self.ipv4 {
                ipv4.work(&mut self.port);
            }
            if let Some(ipv6) = &mut self.ipv6 {
                ipv6.work(&mut self.port);
            }
            while let Err(error) = self.wait() {
                self.port.say_once("cannot wait for news", &error);
                std::thread::sleep(WITHOUT_NEWS);
            }
        }
    }

    fn look_at_link(&mut self) {
        let has_link = interface::has_carrier(&self.port.name);
        if has_link != self.has_link {
            self.has_link = has_link;
            if has_link {
                if self.complain.take().is_none() {
                    say(&format!("{} has a link", self.port.name));
                }
                self.port.has_link();
            } else {
                say(&format!("{} has no link any more", self.port.name));
            }
            if let Some(ipv4) = &mut self.ipv4 {
                ipv4.link(&mut self.port, has_link);
            }
            if let Some(ipv6) = &mut self.ipv6 {
                ipv6.link(&mut self.port, has_link);
            }
        }
        if !has_link && self.complain.is_some_and(|time| time <= uptime()) {
            self.complain = None;
            say(&format!("{} has no link; it is set up when one comes", self.port.name));
        }
    }

    /// Waits until something comes in for this interface or a time has come.
    fn wait(&self) -> nix::Result<()> {
        loop {
            let news = self.news.iter().map(AsFd::as_fd);
            let mut sockets: Vec<PollFd<'_>> = news
                .chain(self.ipv4.iter().flat_map(Ipv4::sockets))
                .chain(self.ipv6.iter().flat_map(Ipv6::sockets))
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            let ready = match poll(&mut sockets, self.patience()) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error),
            };
            let first = sockets.first().and_then(PollFd::any).unwrap_or(false);
            match &self.news {
                // Containers come and go with interfaces of their own.
                Some(news) if first && !news.take(self.port.index) && ready == 1 => {}
                _ => return Ok(()),
            }
        }
    }

    fn patience(&self) -> PollTimeout {
        let now = uptime();
        let timers = [
            self.ipv4.as_ref().and_then(Ipv4::timer),
            self.ipv6.as_ref().and_then(Ipv6::timer),
            self.complain.filter(|_| !self.has_link),
            self.news.is_none().then(|| now + WITHOUT_NEWS),
        ];
        match timers.into_iter().flatten().min() {
            // Rounded up, for a time that has not come yet is none.
            Some(time) => {
                let millis = time.saturating_sub(now).as_millis().saturating_add(1);
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        }
    }

    /// It was moved to a container, or pulled out of the machine.
    fn end(mut self) {
        say(&format!("{} is gone", self.port.name));
        if let Some(ipv4) = &mut self.ipv4 {
            ipv4.lose(&mut self.port);
        }
        self.port.remove_lease("lease6");
        self.port.resolver.forget(self.port.rank);
    }
}
