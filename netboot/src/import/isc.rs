//! ISC's dhcpd: `host` declarations of dhcpd.conf and dhcpd.leases, and the leases, also those of dhcpd6.leases
//! (dhcpd.conf(5), dhcpd.leases(5)).

mod host;
mod lease;
mod left;
mod words;

use self::host::{Host, Hosts};
use self::lease::{Association, Open, Order, association};
use self::words::{Word, Words};
use super::{ImportError, Page, short};

/// How deep declarations may lie in each other.
const MAX_DEPTH: usize = 32;

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    let mut page = Page::default();
    let mut hosts = Hosts::default();
    let mut blocks: Vec<Block> = Vec::new();
    let mut statement: Vec<String> = Vec::new();
    let mut bytes = None;
    let mut start = 1;
    let mut words = Words::new(text);
    let mut order = Order::Little;
    while let Some(word) = words.next()? {
        let line = words.line;
        match word {
            Word::Open => {
                if blocks.len() == MAX_DEPTH {
                    let what = format!("declarations lie more than {MAX_DEPTH} deep in each other");
                    return Err(ImportError::at(line, what));
                }
                let head: Vec<&str> = statement.iter().map(String::as_str).collect();
                let start = if head.is_empty() { line } else { start };
                let kind = Kind::new(&head, start, blocks.last(), order, &mut page)?;
                blocks.push(Block { line: start, kind });
                statement.clear();
            }
            Word::Close => {
                let block =
                    blocks.pop().ok_or_else(|| ImportError::at(line, "a `}` without its `{`"))?;
                block.end(&mut hosts, &mut page);
                statement.clear();
            }
            Word::End => {
                let said: Vec<&str> = statement.iter().map(String::as_str).collect();
                match (blocks.last_mut(), &said[..]) {
                    (None, ["authoring-byte-order", value]) => {
                        order = if *value == "big-endian" { Order::Big } else { Order::Little };
                    }
                    (None, said) => left::statement(said, start, &mut page),
                    (Some(block), said) => block.say(said, bytes.as_deref(), start, &mut page)?,
                }
                statement.clear();
            }
            Word::Text(text, quoted) => {
                if statement.is_empty() {
                    start = line;
                }
                statement.push(text);
                bytes = quoted;
            }
        }
    }
    match blocks.last() {
        Some(block) => Err(ImportError::at(block.line, "a `{` without its `}`")),
        None if !statement.is_empty() => {
            let what = format!("`{}` without a `;` behind it", short(&statement.join(" ")));
            Err(ImportError::at(words.line, what))
        }
        None => {
            page.found = hosts.found();
            Ok(page)
        }
    }
}

/// What stands between `{` and `}`.
#[derive(Debug)]
struct Block {
    line: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Host(Box<Host>),
    Lease(Box<Open>),
    /// An association of a client, in which addresses lie.
    Association(Association),
    /// A declaration whose statements each count for its hosts.
    Group,
    /// A declaration that was told of as a whole.
    Other,
}

impl Kind {
    fn new(
        head: &[&str],
        line: usize,
        outer: Option<&Block>,
        order: Order,
        page: &mut Page,
    ) -> Result<Self, ImportError> {
        let outer = outer.map(|outer| &outer.kind);
        Ok(match *head {
            ["host", name] => Self::Host(Box::new(Host::new(name, line))),
            ["lease", address] if let Ok(address) = address.parse() => {
                Self::Lease(Box::new(Open::four(address)))
            }
            ["ia-na", key] => {
                let what = || {
                    format!("`{}` is no IAID with a DUID behind it, as `ia-na` has it", short(key))
                };
                let whose = association(key, order).ok_or_else(|| ImportError::at(line, what()))?;
                Self::Association(whose)
            }
            ["iaaddr", text] if let Some(Self::Association(whose)) = outer => {
                Self::Lease(Box::new(Open::six(text, whose, line)?))
            }
            // What lies in something that was told of goes with it.
            ["pool" | "pool6" | "iaaddr" | "iaprefix", ..]
                if matches!(outer, Some(Self::Other)) =>
            {
                Self::Other
            }
            _ => {
                left::block(head, line, page);
                if head.first() == Some(&"group") { Self::Group } else { Self::Other }
            }
        })
    }
}

impl Block {
    fn say(
        &mut self,
        words: &[&str],
        bytes: Option<&[u8]>,
        line: usize,
        page: &mut Page,
    ) -> Result<(), ImportError> {
        match (&mut self.kind, words) {
            (_, ["include", ..]) => left::statement(words, line, page),
            (Kind::Host(host), _) => host.say(words, bytes, line, page)?,
            (Kind::Lease(lease), _) => lease.say(words),
            (Kind::Group, _) | (Kind::Other, ["filename" | "next-server" | "server-name", ..]) => {
                left::statement(words, line, page);
            }
            (Kind::Association(_) | Kind::Other, _) => {}
        }
        Ok(())
    }

    fn end(self, hosts: &mut Hosts, page: &mut Page) {
        match self.kind {
            Kind::Host(host) => hosts.add(*host),
            Kind::Lease(lease) => lease.end(self.line, page),
            Kind::Association(_) | Kind::Group | Kind::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Imported, Source, read};

    pub(super) fn one(text: &str) -> Imported {
        read(Source::Isc, &[text.to_owned()]).unwrap()
    }

    #[test]
    fn hosts_in_any_declaration_become_machines() {
        let all = one(r#"
            option domain-name "example.org"; # { not a brace
            subnet 10.0.0.0 netmask 255.255.255.0 { range 10.0.0.10 10.0.0.99;
              pool { allow unknown-clients; }
              host n1 { hardware ethernet 0:c:29:1:2:3; fixed-address 10.0.0.1, 10.0.1.1; }
            }
            group { filename "pxelinux.0";
              host odd-name { hardware ethernet 52:54:00:00:00:02; option host-name "n2";
                option dhcp-client-identifier 01:02:ff; next-server 10.0.0.9; }
            }
            host n3 { hardware infiniband 80:00; }
            if option architecture = 00:07 { filename "x.efi"; } else { filename "y.0"; }
        "#);
        let names: Vec<_> = all.machines.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2"]);
        let mac = all.machines[0].macs.first().map(ToString::to_string);
        assert_eq!(mac.as_deref(), Some("00:0c:29:01:02:03"));
        assert_eq!(all.machines[0].address, "10.0.0.1".parse().ok());
        assert_eq!(all.machines[1].client_id, "hex:0102ff".parse().ok());
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        for (note, start) in notes.iter().zip([
            "line 2: option domain-name is left out",
            "line 3: `subnet` is left out",
            "line 5: only the first address",
            "line 7: `filename pxelinux.0` is left out",
            "line 9: `next-server 10.0.0.9` is left out",
            "line 11: an interface of the kind infiniband",
            "line 11: n3 is left out",
            "line 12: `if` is left out",
            "line 12: `filename x.efi`",
            "line 12: `filename y.0`",
        ]) {
            assert!(note.starts_with(start), "{start}: {notes:?}");
        }
        assert_eq!(notes.len(), 10, "{notes:?}");
    }

    #[test]
    fn what_is_torn_is_refused_with_its_line() {
        for (text, start) in [
            ("host a {\n hardware ethernet 52:54:00:00:00:01;\n", "line 1: a `{`"),
            ("\n}", "line 2: a `}`"),
            ("host a { hardware ethernet 52:54; }", "line 1: `52:54` is not a MAC"),
            ("\n\noption x \"y", "line 3: a `\"`"),
            ("port 67", "line 1: `port 67` without a `;`"),
        ] {
            let (_, error) = read(Source::Isc, &[text.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with(start), "{text}: {error}");
        }
        let deep = "group { ".repeat(50);
        assert!(read(Source::Isc, &[deep]).unwrap_err().1.to_string().contains("deep"));
    }
}
