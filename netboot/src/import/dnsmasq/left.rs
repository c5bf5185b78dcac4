//! Settings that are no hosts: what Kiln has in their place.

use super::super::short;

/// Says of a setting what becomes of it. Values are shown only where they name a file.
pub(super) fn left(key: &str, value: &str) -> String {
    let file = value.split(',').next().unwrap_or_default().trim_matches('"');
    match key {
        "conf-file" | "dhcp-hostsfile" | "addn-hosts" => {
            format!("`{key}={}` is not followed; name that file too", short(file))
        }
        "conf-dir" | "dhcp-hostsdir" | "hostsdir" => {
            format!("`{key}={}` is not followed; name the files in it too", short(file))
        }
        "read-ethers" => "`read-ethers` is not followed; name /etc/ethers too".to_owned(),
        "dhcp-leasefile" | "dhcp-lease-file" => {
            let file = short(file);
            format!("`{key}={file}` is not followed; --leases {file} takes over its leases")
        }
        "dhcp-optsfile" | "dhcp-optsdir" | "dhcp-option" | "dhcp-option-force" => format!(
            "`{key}` is left out; options are set by `options` of a `[[subnet]]` in kiln.toml, or with --dhcp-option \
             of machines and groups"
        ),
        "dhcp-range" => {
            "`dhcp-range` is left out; write it as a `[[subnet]]` in kiln.toml".to_owned()
        }
        "dhcp-boot" | "dhcp-option-pxe" | "dhcp-pxe-vendor" | "pxe-prompt" | "pxe-service"
        | "enable-tftp" | "tftp-root" | "tftp-unique-root" => {
            format!("`{key}` is left out: Kiln finds the loader by the firmware")
        }
        "dhcp-match" | "dhcp-name-match" | "dhcp-mac" | "dhcp-vendorclass" | "dhcp-userclass"
        | "dhcp-circuitid" | "dhcp-remoteid" | "dhcp-subscrid" | "dhcp-ignore" | "tag-if" => {
            format!(
                "`{key}` is left out: what a machine gets depends on its labels and groups, not on how it asks"
            )
        }
        _ => format!(
            "`{key}` is left out: it says nothing of a machine, and what Kiln has of it is set in kiln.toml"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::one;

    #[test]
    fn files_that_are_named_are_told_of_so_that_they_are_imported_too() {
        let all = one("conf-dir=/etc/dnsmasq.d/,*.conf\nconf-file=/etc/more.conf\n\
             dhcp-hostsfile=/etc/hosts.dhcp\ndhcp-hostsdir=/etc/dhcp\nread-ethers\n\
             addn-hosts=/etc/hosts.more\ndhcp-leasefile=/var/lib/leases\n");
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        let expected = [
            "line 1: `conf-dir=/etc/dnsmasq.d/` is not followed; name the files in it too",
            "line 2: `conf-file=/etc/more.conf` is not followed; name that file too",
            "line 3: `dhcp-hostsfile=/etc/hosts.dhcp` is not followed; name that file too",
            "line 4: `dhcp-hostsdir=/etc/dhcp` is not followed; name the files in it too",
            "line 5: `read-ethers` is not followed; name /etc/ethers too",
            "line 6: `addn-hosts=/etc/hosts.more` is not followed; name that file too",
            "line 7: `dhcp-leasefile=/var/lib/leases` is not followed; --leases /var/lib/leases takes over its leases",
        ];
        assert_eq!(notes, expected);
    }

    #[test]
    fn every_other_setting_is_told_of_once_and_its_value_is_not_shown() {
        let all = one(
            "dhcp-range=10.0.0.9,10.0.0.99\ndhcp-range=10.0.1.9,10.0.1.99\ndhcp-boot=pxelinux.0\n\
             dhcp-option=3,10.0.0.1\ndhcp-match=set:efi,93,7\nauth-server=geheim\nno-resolv\n",
        );
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        let starts = [
            "line 1: `dhcp-range` is left out; write",
            "line 3: `dhcp-boot` is left out: Kiln finds",
            "line 4: `dhcp-option` is left out; options",
            "line 5: `dhcp-match` is left out: what",
            "line 6: `auth-server` is left out: it says",
            "line 7: `no-resolv` is left out: it says",
        ];
        assert_eq!(notes.len(), starts.len(), "{notes:?}");
        for (note, start) in notes.iter().zip(starts) {
            assert!(note.starts_with(start) && !note.contains("geheim"), "{note}");
        }
        assert!(notes[0].ends_with("(also in line 2)"), "{notes:?}");
    }
}
