//! Files of other servers, damaged: each is read, or refused with its line.

use super::{Source, read};

fn check(name: &str, source: Source, samples: &[&str]) {
    let samples: Vec<&[u8]> = samples.iter().map(|text| text.as_bytes()).collect();
    kiln_fuzz::check(name, &samples, |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        match read(source, &[text]) {
            Ok(all) => {
                for machine in &all.machines {
                    assert!(!machine.macs.is_empty() && !machine.name.is_empty());
                }
                let said: Vec<String> = all.notes.iter().map(ToString::to_string).collect();
                assert!(said.iter().all(|note| !note.contains('\u{1b}')));
            }
            Err((_, error)) => assert!(!error.to_string().contains('\u{1b}')),
        }
    });
}

#[test]
fn fuzzed_settings_and_leases_of_dnsmasq_are_read_or_refused() {
    let settings = "# hosts\ninterface=eth0\ndhcp-range=10.0.0.10,10.0.0.99,12h\n\
                    dhcp-host=52:54:00:00:00:01,set:red,n1,10.0.0.1,infinite\n\
                    dhcp-host=52-54-00-00-00-02,52:54:00:00:00:03,n2.example.org,[fd00::2]\n\
                    dhcp-host=id:01:02:ff,52:54:00:00:00:04,id:*,ignore\n\
                    dhcp-host=06-00:11:22:33:44:55,1-52:54:0:0:0:6,52:54:*:*:*:*,[::5]\nconf-dir=/etc/x,*.conf\n\
                    52:54:00:00:00:07 n7\n10.0.0.7 n7.example.org n7 www\n";
    let leases = "1700000000 52:54:00:00:00:01 10.0.0.50 n1 01:52:54:00:00:00:01\n\
                  0 52:54:00:00:00:02 10.0.0.51 * *\nduid 00:01:00\n\
                  1700000000 7 fd00::5 n5 00:04:aa:bb\n0 T8 fd00::6 * 00:04:aa:bb\n";
    check("import-dnsmasq", Source::Dnsmasq, &[settings, leases]);
}

#[test]
fn fuzzed_settings_and_leases_of_isc_are_read_or_refused() {
    let settings = r#"option domain-name "example.org"; # { not a brace
        subnet 10.0.0.0 netmask 255.255.255.0 { range 10.0.0.10 10.0.0.99;
          host n1 { hardware ethernet 0:c:29:1:2:3; fixed-address 10.0.0.1, 10.0.1.1; } }
        group { host odd { hardware ethernet 52:54:00:00:00:02; option host-name "n2";
          option dhcp-client-identifier 01:02:ff; next-server 10.0.0.9; } }
        if option architecture = 00:07 { filename "x.efi"; } else { filename "y.0"; }"#;
    let leases = r#"lease 10.0.0.50 { starts 6 2026/11/21 15:00:00; ends 6 2026/11/21 15:10:00;
        binding state active; hardware ethernet 52:54:00:00:00:01; client-hostname "n1"; }
        lease 10.0.0.51 { ends never; hardware ethernet 52:54:00:00:00:02; }
        lease 10.0.0.50 { ends epoch 1700000000; binding state free; }"#;
    let leases6 = r#"authoring-byte-order little-endian; server-duid "\000\001";
        ia-na "\001\000\000\002\000\003\000\001RT\000\000\000\005" { cltt 6 2026/11/21 15:00:00;
          iaaddr fd00::5 { binding state active; max-life 600; ends 6 2026/11/21 15:10:00; } }"#;
    check("import-isc", Source::Isc, &[settings, leases, leases6]);
}

#[test]
fn fuzzed_settings_and_leases_of_kea_are_read_or_refused() {
    let settings = r#"{ // of the site
        "Dhcp4": { /* long */ "reservations": [ { "hw-address": "52:54:00:00:00:01", "hostname": "n1 # no" } ],
        "subnet4": [ { "reservations": [ { "circuit-id": "'port 7'", "ip-address": "10.0.0.7", "client-id": "01:02:ff",
        "hw-address": "52:54:00:00:00:07", "client-classes": ["Red Hat"], }, ] } ], },
        "Dhcp6": { "subnet6": [ { "reservations": [ { "hw-address": "52:54:00:00:00:02", "ip-addresses": ["fd00::2"] } ] } ] } }"#;
    let leases = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n\
                  10.0.0.50,52:54:00:00:00:01,,3600,1700000000,1,0,0,n1.,0,,0\n\
                  10.0.0.51,52:54:00:00:00:02,,4294967295,1700000001,1,0,0,,2,,0\n";
    let leases6 = "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context\n\
                   fd00::5,00:04:aa:bb,3600,1700000000,1,1800,0,7,128,0,0,n5.,52:54:00:00:00:05,0,\n\
                   fd01::,00:04:aa:bb,3600,1700000004,1,1800,2,7,64,0,0,,,0,\n";
    check("import-kea", Source::Kea, &[settings, leases, leases6]);
}

#[test]
fn fuzzed_nodes_of_warewulf_are_read_or_refused() {
    let nodes = "nodeprofiles:\n  default:\n    image name: Rocky-9\n    kernel:\n      args: [quiet, 'console=ttyS0']\n\
                 \x20 old: {profiles: [default, old], resources: {a: [1]}, kernel: {args: x, override: y}}\nnodes:\n  n1:\n    profiles: [default, ~old]\n    network devices:\n      \
                 default: {device: eth0, hwaddr: '52:54:00:00:00:01', ipaddr: 10.0.0.1, ipaddr6: fd00::2/64}\n";
    check("import-warewulf", Source::Warewulf, &[nodes]);
}

#[test]
fn fuzzed_groups_of_matchbox_are_read_or_refused() {
    let group = r#"{"id":"node1","name":"Node 1","profile":"etcd","selector":{"mac":"52:54:00:00:00:01","os":"installed"},"metadata":{"role":"db"}}"#;
    let profile = r#"{"id":"etcd","name":"etcd","ignition_id":"e.yaml","boot":{"kernel":"/assets/k","initrd":["/assets/i"],"args":["quiet","initrd=main","x=${uuid:uristring}"]}}"#;
    check("import-matchbox", Source::Matchbox, &[group, profile]);
}
