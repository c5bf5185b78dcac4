//! Statements and declarations that are neither hosts nor leases: what Kiln has in their place. Values are shown only of
//! those that name a loader.

use super::super::{Page, short};

/// Tells of a statement.
pub(super) fn statement(words: &[&str], line: usize, page: &mut Page) {
    let what = match *words {
        [] => return,
        ["include", file, ..] => format!("{} is included by this file; name it too", short(file)),
        ["filename" | "next-server" | "server-name", ..] => {
            let said = short(&words.join(" "));
            format!("`{said}` is left out: Kiln finds the loader by the firmware")
        }
        ["option", name, ..] => format!(
            "option {} is left out; options are set by `options` of a `[[subnet]]` in kiln.toml, or with --dhcp-option \
             of machines and groups",
            short(name)
        ),
        ["server-duid", ..] => {
            "the server's own DUID is left out: Kiln has another, and clients turn to it by themselves"
                .to_owned()
        }
        [key, ..] => declaration(key),
    };
    page.note(line, what);
}

/// Tells of a declaration, by the words before its `{`.
pub(super) fn block(words: &[&str], line: usize, page: &mut Page) {
    match *words {
        // It holds what counts for its hosts, and each of that is told of by itself.
        ["group", ..] => {}
        ["lease", ..] => page.note(line, "a lease without an address is left out"),
        [key, ..] => page.note(line, declaration(key)),
        [] => page.note(line, "a block without a name is left out, but for its hosts"),
    }
}

fn declaration(key: &str) -> String {
    match key {
        "if" | "elsif" | "else" | "switch" => {
            "`if` is left out with what is in it: Kiln finds the loader by the firmware".to_owned()
        }
        "class" | "subclass" => format!(
            "`{key}` is left out: what a machine gets depends on its labels and groups, not on how it asks"
        ),
        "subnet" | "subnet6" | "shared-network" | "pool" | "pool6" | "range" | "range6" => {
            format!(
                "`{key}` is left out, but for its hosts; write it as a `[[subnet]]` in kiln.toml"
            )
        }
        "iaaddr" | "ia-ta" | "ia-pd" | "iaprefix" => {
            format!("`{key}` is left out: Kiln gives neither temporary addresses nor prefixes")
        }
        _ => format!(
            "`{}` is left out: it says nothing of a machine, and what Kiln has of it is set in kiln.toml",
            short(key)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::one;

    #[test]
    fn what_stands_around_the_hosts_is_told_of_once_for_each_kind() {
        let all = one("include \"/etc/more.conf\";\ndefault-lease-time 600;\n\
             key omapi { algorithm hmac-md5; secret \"geheim\"; }\n\
             class \"pxe\" { match if substring(option x, 0, 9) = \"PXEClient\"; filename \"a.0\"; }\n\
             subclass \"a\" 1:52:54:00:00:00:09;\nsubclass \"a\" 1:52:54:00:00:00:0a;\n\
             subnet 10.0.0.0 netmask 255.255.255.0 { range 10.0.0.9 10.0.0.99; option routers 10.0.0.1;\n\
             next-server 10.0.0.9;\n include \"/etc/hosts.conf\";\n\
             if option arch = 00:07 { filename \"x.efi\"; }\n else { filename \"a.0\"; } }\n\
             subnet 10.1.0.0 netmask 255.255.255.0 { }\n\
             group { option domain-name \"x\"; host n1 { hardware ethernet 52:54:00:00:00:01; } }\n\
             option routers 10.0.0.1;\n");
        assert_eq!(all.machines.len(), 1);
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        let starts = [
            "line 1: /etc/more.conf is included",
            "line 2: `default-lease-time` is left out: it says",
            "line 3: `key` is left out: it says",
            "line 4: `class` is left out: what",
            "line 4: `filename a.0` is left out",
            "line 5: `subclass` is left out: what",
            "line 7: `subnet` is left out, but",
            "line 8: `next-server 10.0.0.9` is left out",
            "line 9: /etc/hosts.conf is included",
            "line 10: `if` is left out",
            "line 10: `filename x.efi` is left out",
            "line 13: option domain-name is left out",
            "line 14: option routers is left out",
        ];
        assert_eq!(notes.len(), starts.len(), "{notes:?}");
        for (note, start) in notes.iter().zip(starts) {
            assert!(note.starts_with(start) && !note.contains("geheim"), "{notes:?}");
        }
        assert!(notes[4].ends_with("(also in line 11)"), "{notes:?}");
        assert!(notes[5].ends_with("(also in line 6)"), "{notes:?}");
        assert!(notes[6].ends_with("(also in line 12)"), "{notes:?}");
    }
}
