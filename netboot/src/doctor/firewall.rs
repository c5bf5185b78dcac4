//! Rules of the host's firewall that drop what machines ask.

use std::process::Command;

use serde_json::Value;

use super::Finding;
use crate::settings::{DhcpMode, Settings};

/// Chains that one packet goes through at most.
const DEPTH: usize = 16;

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut ports = vec![(false, settings.tftp_port), (true, settings.http_port)];
    if settings.subnets.iter().any(|subnet| subnet.dhcp != DhcpMode::Off) {
        ports.insert(0, (false, 67));
    }
    if settings.subnets.iter().any(|subnet| subnet.dhcp == DhcpMode::Proxy) {
        ports.push((false, 4011));
    }
    if let Some(https) = &settings.https {
        ports.push((true, https.port));
    }
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        output.status.success().then_some(output.stdout)
    };
    let nft = output("nft", &["-j", "list", "ruleset"]);
    let nft = nft.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let iptables = output("iptables-save", &["-t", "filter"]);
    let iptables = iptables.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    judge(nft.as_ref(), iptables.as_deref(), &ports)
}

fn judge(nft: Option<&Value>, iptables: Option<&str>, ports: &[(bool, u16)]) -> Vec<Finding> {
    const CHECK: &str = "firewall";
    if nft.is_none() && iptables.is_none() {
        // Most often there is none.
        return vec![Finding::good(
            CHECK,
            "rules of this host",
            "neither nft nor iptables tells any",
        )];
    }
    let mut findings = Vec::new();
    for &(tcp, port) in ports {
        let protocol = if tcp { "tcp" } else { "udp" };
        let by_nft = nft.and_then(|rules| dropped_by_nft(rules, protocol, port));
        let by = by_nft.map(|chain| (chain, false)).or_else(|| {
            let chain = iptables.and_then(|rules| dropped_by_iptables(rules, protocol, port))?;
            Some((chain, true))
        });
        let Some((chain, old)) = by else { continue };
        let remedy = if old {
            format!("iptables -I INPUT -p {protocol} --dport {port} -j ACCEPT")
        } else {
            let [family, table, name] = &chain;
            format!("nft insert rule {family} {table} {name} {protocol} dport {port} accept")
        };
        let found = format!("the chain {} drops what comes in", chain.join(" "));
        let subject = format!("{} {port}", protocol.to_uppercase());
        findings.push(Finding::wrong(CHECK, subject, found, remedy));
    }
    if findings.is_empty() {
        let found = "no rule drops what machines ask, as far as rules can be read";
        findings.push(Finding::good(CHECK, "rules of this host", found));
    }
    findings
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Accepted,
    Dropped,
    /// Back to where the chain was called from, or on to its policy.
    Returned,
}

/// Returns the chain where a first packet to a port ends, as nft lists its rules in JSON.
fn dropped_by_nft(rules: &Value, protocol: &str, port: u16) -> Option<[String; 3]> {
    let list = rules.get("nftables")?.as_array()?;
    let of = |kind: &'static str| list.iter().filter_map(move |entry| entry.get(kind));
    let word = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut chains: Vec<&Value> = of("chain")
        .filter(|chain| {
            chain.get("hook").and_then(Value::as_str) == Some("input")
                && ["ip", "inet"].contains(&chain["family"].as_str().unwrap_or_default())
        })
        .collect();
    chains.sort_by_key(|chain| chain.get("prio").and_then(Value::as_i64));
    for chain in chains {
        let place = [word(chain, "family")?, word(chain, "table")?, word(chain, "name")?];
        let walk = Walk { list, protocol, port };
        let fate = match walk.chain(&place, DEPTH) {
            Fate::Returned if word(chain, "policy").as_deref() == Some("drop") => Fate::Dropped,
            fate => fate,
        };
        if fate == Fate::Dropped {
            return Some(place);
        }
    }
    None
}

struct Walk<'a> {
    list: &'a [Value],
    protocol: &'a str,
    port: u16,
}

impl Walk<'_> {
    fn chain(&self, place: &[String; 3], depth: usize) -> Fate {
        let [family, table, chain] = place;
        let rules = self.list.iter().filter_map(|entry| entry.get("rule")).filter(|rule| {
            rule["family"] == **family && rule["table"] == **table && rule["chain"] == **chain
        });
        for rule in rules {
            let fate = self.rule(rule, place, depth);
            if fate != Fate::Returned {
                return fate;
            }
        }
        Fate::Returned
    }

    fn rule(&self, rule: &Value, place: &[String; 3], depth: usize) -> Fate {
        for part in rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if let Some(test) = part.get("match") {
                if !self.is_met(test) {
                    return Fate::Returned;
                }
            } else if part.get("accept").is_some() {
                return Fate::Accepted;
            } else if part.get("drop").is_some() || part.get("reject").is_some() {
                return Fate::Dropped;
            } else if let Some(target) =
                part.get("jump").or_else(|| part.get("goto")).and_then(|to| to["target"].as_str())
            {
                let [family, table, _] = place;
                let to = [family.clone(), table.clone(), target.to_owned()];
                return if depth == 0 { Fate::Returned } else { self.chain(&to, depth - 1) };
            } else if part.get("counter").is_none() && part.get("log").is_none() {
                // Limits, sets by name and what iptables has brought along: it may or may not be met.
                return Fate::Returned;
            }
        }
        Fate::Returned
    }

    /// Returns whether a first packet of a machine meets a condition. What cannot be told is not met.
    fn is_met(&self, test: &Value) -> bool {
        let (left, right) = (&test["left"], &test["right"]);
        let is = match (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str()) {
            (Some(of), Some("dport")) if of == self.protocol || of == "th" => {
                has_number(right, self.port)
            }
            (Some("ip"), Some("protocol")) => has_word(right, self.protocol),
            _ if left["meta"]["key"] == "l4proto" => has_word(right, self.protocol),
            _ if left["meta"]["key"] == "nfproto" => has_word(right, "ipv4"),
            _ if left["ct"]["key"] == "state" => has_word(right, "new"),
            _ => return false,
        };
        match test["op"].as_str() {
            Some("==" | "in") | None => is,
            Some("!=") => !is,
            Some(_) => false,
        }
    }
}

fn has_number(value: &Value, port: u16) -> bool {
    if let Some(range) = value.get("range").and_then(Value::as_array) {
        let [low, high] = range.as_slice() else { return false };
        let (low, high) = (low.as_u64().unwrap_or(u64::MAX), high.as_u64().unwrap_or(0));
        return (low..=high).contains(&u64::from(port));
    }
    if let Some(set) = value.get("set").unwrap_or(value).as_array() {
        return set.iter().any(|one| has_number(one, port));
    }
    value.as_u64() == Some(port.into())
}

fn has_word(value: &Value, word: &str) -> bool {
    match value.get("set").unwrap_or(value) {
        Value::Array(words) => words.iter().any(|one| one == word),
        one => one == word,
    }
}

/// The same for what `iptables-save` writes.
fn dropped_by_iptables(rules: &str, protocol: &str, port: u16) -> Option<[String; 3]> {
    let place = ["iptables".to_owned(), "filter".to_owned(), "INPUT".to_owned()];
    match iptables_chain(rules, "INPUT", protocol, port, DEPTH) {
        Fate::Dropped => Some(place),
        Fate::Accepted => None,
        Fate::Returned => {
            let policy = rules.lines().find_map(|line| line.strip_prefix(":INPUT "))?;
            policy.starts_with("DROP").then_some(place)
        }
    }
}

fn iptables_chain(rules: &str, chain: &str, protocol: &str, port: u16, depth: usize) -> Fate {
    for line in rules.lines() {
        let Some(rule) = line.strip_prefix("-A ").and_then(|rule| rule.strip_prefix(chain)) else {
            continue;
        };
        let Some(rule) = rule.strip_prefix(' ') else { continue };
        let words: Vec<&str> = rule.split_whitespace().collect();
        let mut met = true;
        let mut target = "";
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match *word {
                "-p" => met &= rest.next() == Some(&protocol),
                "-m" | "--comment" | "--reject-with" | "--log-prefix" => drop(rest.next()),
                "--dport" | "--dports" => {
                    met &= rest
                        .next()
                        .is_some_and(|text| text.split(',').any(|part| in_range(part, port)));
                }
                "--ctstate" | "--state" => {
                    met &= rest.next().is_some_and(|states| states.split(',').any(|s| s == "NEW"));
                }
                "-j" | "-g" => target = rest.next().copied().unwrap_or_default(),
                // An address, an interface, a limit: it cannot be told.
                _ => met = false,
            }
        }
        if !met {
            continue;
        }
        let fate = match target {
            "ACCEPT" => Fate::Accepted,
            "DROP" | "REJECT" => Fate::Dropped,
            "RETURN" => return Fate::Returned,
            "" | "LOG" => continue,
            other if depth > 0 => iptables_chain(rules, other, protocol, port, depth - 1),
            _ => continue,
        };
        if fate != Fate::Returned {
            return fate;
        }
    }
    Fate::Returned
}

fn in_range(text: &str, port: u16) -> bool {
    let (low, high) = text.split_once(':').unwrap_or((text, text));
    match (low.parse::<u16>(), high.parse::<u16>()) {
        (Ok(low), Ok(high)) => (low..=high).contains(&port),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(policy: &str, exprs: &[Value]) -> Value {
        let mut list = vec![
            json!({"metainfo": {"version": "1.0.6"}}),
            json!({"chain": {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}}),
            json!({"chain": {"family": "inet", "table": "filter", "name": "boot"}}),
            json!({"rule": {"family": "inet", "table": "filter", "chain": "boot", "expr": [{"drop": null}]}}),
        ];
        list.extend(exprs.iter().map(|expr| {
            json!({"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": expr}})
        }));
        json!({"nftables": list})
    }

    fn dport(port: &Value) -> Value {
        json!({"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": port}})
    }

    #[test]
    fn rules_of_nft_are_followed_as_the_kernel_does() {
        let drops = |rules: &Value, port| dropped_by_nft(rules, "udp", port).is_some();
        let state = json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}});
        let known = json!([state, {"accept": null}]);
        assert!(!drops(&rules("accept", &[]), 67));
        assert!(drops(&rules("drop", std::slice::from_ref(&known)), 67));
        let open = json!([dport(&json!({"set": [67, {"range": [60, 70]}]})), {"counter": {"packets": 0}}, {"accept": null}]);
        assert!(!drops(&rules("drop", &[known, open.clone()]), 69));
        assert!(drops(&rules("drop", &[open]), 4011));
        let closed = json!([dport(&json!(69)), {"reject": null}]);
        assert!(drops(&rules("accept", std::slice::from_ref(&closed)), 69));
        assert!(!drops(&rules("accept", &[closed]), 67));
        let jump = json!([dport(&json!(67)), {"jump": {"target": "boot"}}]);
        assert!(drops(&rules("accept", &[jump]), 67));
        let loops = json!([{"jump": {"target": "input"}}]);
        assert!(!drops(&rules("accept", &[loops]), 67));
        let limited = json!([{"limit": {"rate": 5}}, {"drop": null}]);
        assert!(!drops(&rules("accept", &[limited]), 67), "it cannot be told");
    }

    #[test]
    fn rules_of_iptables_are_followed_too() {
        let drops = |rules: &str, port| dropped_by_iptables(rules, "udp", port).is_some();
        let head = "*filter\n:INPUT DROP [0:0]\n:BOOT - [0:0]\n";
        assert!(drops(head, 67));
        let open = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
                    -A INPUT -p udp -m udp --dport 67:69 -j ACCEPT\n";
        assert!(!drops(&format!("{head}{open}"), 69));
        assert!(drops(&format!("{head}{open}"), 4011));
        let own = "-A INPUT -p udp -m multiport --dports 53,67 -j BOOT\n-A BOOT -j ACCEPT\n";
        assert!(!drops(&format!("{head}{own}"), 67));
        let accept = ":INPUT ACCEPT [0:0]\n";
        assert!(drops(
            &format!("{accept}-A INPUT -p udp -j REJECT --reject-with icmp-port-unreachable\n"),
            67
        ));
        assert!(
            !drops(&format!("{accept}-A INPUT -s 10.9.0.0/16 -j DROP\n"), 67),
            "it cannot be told"
        );
        assert!(!drops(&format!("{accept}-A INPUT -p tcp -j DROP\n"), 67));
    }

    #[test]
    fn the_remedy_opens_the_port_in_the_chain_that_drops() {
        let found = judge(Some(&rules("drop", &[])), None, &[(false, 67), (true, 8080)]);
        let remedies: Vec<_> = found.iter().filter_map(|f| f.remedy.as_deref()).collect();
        assert_eq!(
            remedies,
            [
                "nft insert rule inet filter input udp dport 67 accept",
                "nft insert rule inet filter input tcp dport 8080 accept"
            ]
        );
        let found = judge(None, Some(":INPUT DROP [0:0]\n"), &[(false, 69)]);
        assert_eq!(
            found[0].remedy.as_deref(),
            Some("iptables -I INPUT -p udp --dport 69 -j ACCEPT")
        );
        assert_eq!(judge(None, None, &[(false, 67)]).len(), 1);
    }
}
