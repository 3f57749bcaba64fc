//! The rules as iptables: four chains in each family's nat table, one atomic `iptables-restore --noflush` a family.
//!
//! Only for machines without nftables. The two kinds of iptables (over nf_tables, and legacy) keep their rules apart,
//! so each that is installed is a tool of its own here.

use anyhow::{Context, Result};

use super::{
    loaded::{Loaded, Present},
    rules::{CANARY_PORT, Capture, Chain, Family, INBOUND_PORT, Match, Name, OUTBOUND_PORT, Rule, Then},
    tool::Tool,
};

/// One kind of iptables; the half for IPv6 may be missing.
#[derive(Debug)]
pub struct Iptables {
    name: &'static str,
    v4: Pair,
    v6: Option<Pair>,
}

impl Iptables {
    /// Every kind that is installed, each once, the system's own choice first.
    pub fn find() -> Vec<Result<Self>> {
        let mut found: Vec<Self> = vec![];
        for [name, save, restore, save6, restore6] in KINDS {
            if let Some(v4) = Pair::find(save, restore)
                && !found.iter().any(|known| known.v4.save.is(&v4.save))
            {
                found.push(Self { name, v4, v6: Pair::find(save6, restore6) });
            }
        }
        found.into_iter().map(|each| each.v4.saved().map(|_| each)).collect()
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Loads exactly these rules, one transaction a family.
    pub fn apply(&self, capture: &Capture) -> Result<()> {
        for (family, script) in self.scripts(capture)? {
            self.pair(family)?.feed(&script)?;
        }
        Ok(())
    }

    /// What [`Self::apply`] loads now.
    pub fn scripts(&self, capture: &Capture) -> Result<Vec<(Family, String)>> {
        let mut scripts = vec![];
        for family in Family::ALL {
            if capture.families().contains(&family) {
                let saved = self.pair(family)?.saved()?;
                scripts.push((family, render(capture, family, &saved)));
            } else if let Ok(pair) = self.pair(family)
                && let Some(script) = removal(&pair.saved()?)
            {
                scripts.push((family, script));
            }
        }
        Ok(scripts)
    }

    /// Deletes our chains and the jumps to them. Returns whether there were any.
    pub fn remove(&self) -> Result<bool> {
        let mut removed = false;
        for pair in std::iter::once(&self.v4).chain(&self.v6) {
            if let Some(script) = removal(&pair.saved()?) {
                pair.feed(&script)?;
                removed = true;
            }
        }
        Ok(removed)
    }

    pub fn loaded(&self) -> Result<Vec<Loaded>> {
        let mut found = vec![];
        let pairs =
            std::iter::once((Family::V4, &self.v4)).chain(self.v6.iter().map(|pair| (Family::V6, pair)));
        for (family, pair) in pairs {
            let saved = pair.saved()?;
            if !saved.is_empty() {
                let rules = saved.lines.iter().map(|line| format!("{line}\n")).collect();
                found.push(Loaded { tool: self.name, family, present: present(&saved), rules });
            }
        }
        Ok(found)
    }

    fn pair(&self, family: Family) -> Result<&Pair> {
        match family {
            Family::V4 => Ok(&self.v4),
            Family::V6 => self.v6.as_ref().with_context(|| {
                format!("{} has no counterpart for IPv6 here; --ipv6 off leaves IPv6 uncaptured", self.name())
            }),
        }
    }
}

/// The two programs of one family.
#[derive(Debug)]
struct Pair {
    save: Tool,
    restore: Tool,
}

impl Pair {
    fn find(save: &'static str, restore: &'static str) -> Option<Self> {
        Some(Self { save: Tool::find(save)?, restore: Tool::find(restore)? })
    }

    /// Asks for all tables, not for nat: naming a table makes the legacy kind create it.
    fn saved(&self) -> Result<Saved> {
        Ok(Saved::read(&self.save.read(&[])?))
    }

    /// Waits up to 5 s for whoever else holds the lock of the legacy kind.
    fn feed(&self, script: &str) -> Result<()> {
        self.restore.feed(&["--noflush", "--wait", "5"], script)
    }
}

/// Our lines of a saved nat table.
#[derive(Debug, Default)]
struct Saved {
    chains: Vec<Name>,
    jumps: Vec<Name>,
    lines: Vec<String>,
}

impl Saved {
    fn read(saved: &str) -> Self {
        let mut ours = Self::default();
        let mut table = "";
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            }
            if table != "nat" {
                continue;
            }
            for name in Name::ALL {
                if line == format!("-A {}", jump(name)) {
                    ours.jumps.push(name);
                    ours.lines.push(line.into());
                } else if line.starts_with(&format!(":{} ", chain_name(name))) {
                    ours.chains.push(name);
                    ours.lines.push(line.into());
                } else if line.starts_with(&format!("-A {} ", chain_name(name))) {
                    ours.lines.push(line.into());
                }
            }
        }
        ours
    }

    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// Lines that take the jumps away, so that chains can be filled, or jumps set, without one too many.
    fn without_jumps(&self) -> String {
        self.jumps.iter().map(|&name| format!("-D {}\n", jump(name))).collect()
    }
}

/// One family's script. Naming a chain makes it, or empties one that is there.
fn render(capture: &Capture, family: Family, saved: &Saved) -> String {
    let chains = capture.chains(family);
    let mut script = String::from("*nat\n");
    for chain in &chains {
        script.push_str(&format!(":{} - [0:0]\n", chain_name(chain.name)));
    }
    script.push_str(&saved.without_jumps());
    chains.iter().flat_map(lines).for_each(|line| script.push_str(&format!("-A {line}\n")));
    for chain in chains.iter().filter(|chain| chain.name.is_hooked()) {
        script.push_str(&format!("-I {}\n", jump(chain.name)));
    }
    script.push_str("COMMIT\n");
    script
}

/// The script that takes away what is there, if anything is.
fn removal(saved: &Saved) -> Option<String> {
    if saved.is_empty() {
        return None;
    }
    let each = |verb| saved.chains.iter().map(move |&name| format!("{verb} {}\n", chain_name(name)));
    let chains: String = each("-F").chain(each("-X")).collect();
    Some(format!("*nat\n{}{chains}COMMIT\n", saved.without_jumps()))
}

fn lines(chain: &Chain) -> impl Iterator<Item = String> {
    chain.rules.iter().map(|each| format!("{} {}", chain_name(chain.name), rule(each)))
}

fn rule(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.when.iter().copied().map(condition).collect();
    words.push(match rule.then {
        Then::Return => "-j RETURN".into(),
        Then::Goto(chain) => format!("-g {}", chain_name(chain)),
        Then::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
    });
    words.join(" ")
}

fn condition(condition: Match) -> String {
    match condition {
        Match::NotFrom(cidr) => format!("! -s {cidr}"),
        Match::To(cidr) => format!("-d {cidr}"),
        Match::NotTo(cidr) => format!("! -d {cidr}"),
        Match::InLoopback => "-i lo".into(),
        Match::OutLoopback => "-o lo".into(),
        Match::Tcp => "-p tcp".into(),
        Match::Port(port) => format!("-p tcp -m tcp --dport {port}"),
        Match::User(uid) => format!("-m owner --uid-owner {uid}"),
    }
}

fn chain_name(name: Name) -> String {
    format!("OUTRIGGER_{}", name.word().to_ascii_uppercase())
}

/// From the kernel's chain to ours, which has its name.
fn jump(name: Name) -> String {
    format!("{} -p tcp -j {}", name.word().to_ascii_uppercase(), chain_name(name))
}

/// Which parts saved lines hold, each from the kernel's hook to the redirection.
fn present(saved: &Saved) -> Present {
    let jumps = |name| saved.jumps.contains(&name);
    let holds = |chain: Name, part: &str, end: &str| {
        let start = format!("-A {} ", chain_name(chain));
        saved.lines.iter().any(|line| line.starts_with(&start) && line.contains(part) && line.ends_with(end))
    };
    let to_outbound = format!("-g {}", chain_name(Name::Outbound));
    let to_inbound = format!("-g {}", chain_name(Name::Inbound));
    let outbound = holds(Name::Outbound, "-j REDIRECT", &format!("--to-ports {OUTBOUND_PORT}"));
    let inbound = holds(Name::Inbound, "-j REDIRECT", &format!("--to-ports {INBOUND_PORT}"));
    let sends = jumps(Name::Output);
    Present {
        canary: sends && outbound && holds(Name::Output, &format!("--dport {CANARY_PORT} "), &to_outbound),
        outbound: sends && outbound && holds(Name::Output, "_OUTPUT -p tcp -g", &to_outbound),
        inbound: jumps(Name::Prerouting) && inbound && holds(Name::Prerouting, "-p tcp", &to_inbound),
        self_calls: sends && inbound && holds(Name::Output, "--uid-owner", &to_inbound),
    }
}

/// A kind's name, its save and restore for IPv4, then for IPv6.
const KINDS: [[&str; 5]; 3] = [
    ["iptables", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"],
    [
        "iptables-nft",
        "iptables-nft-save",
        "iptables-nft-restore",
        "ip6tables-nft-save",
        "ip6tables-nft-restore",
    ],
    [
        "iptables-legacy",
        "iptables-legacy-save",
        "iptables-legacy-restore",
        "ip6tables-legacy-save",
        "ip6tables-legacy-restore",
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_one_script_a_family() {
        let [v4, v6] =
            Family::ALL.map(|family| render(&Capture::with_everything(), family, &Saved::default()));
        assert_eq!(v4, include_str!("golden/everything.iptables"));
        assert_eq!(v6, include_str!("golden/everything.ip6tables"));
    }

    /// What iptables-save prints after a load: chains first, sorted, and other tables around it.
    const SAVED: &str = concat!(
        "# Generated by iptables-save v1.8.9 on Mon Nov 23 09:13:45 2026\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n",
        include_str!("golden/saved.iptables"),
        "# Completed on Mon Nov 23 09:13:45 2026\n",
    );

    #[test]
    fn a_second_load_takes_the_first_ones_jumps_away() {
        let again = render(&Capture::with_everything(), Family::V4, &Saved::read(SAVED));
        let first = include_str!("golden/everything.iptables");
        let jumps = "-D PREROUTING -p tcp -j OUTRIGGER_PREROUTING\n-D OUTPUT -p tcp -j OUTRIGGER_OUTPUT\n";
        assert_eq!(again, first.replacen("-A ", &format!("{jumps}-A "), 1));
    }

    #[test]
    fn removes_what_is_there_and_no_more() {
        assert_eq!(removal(&Saved::read("*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j OTHERS\nCOMMIT\n")), None);
        // Jumps twice, and two chains gone: someone has been here.
        let partly = "*nat\n:OUTRIGGER_OUTPUT - [0:0]\n:OUTRIGGER_INBOUND - [0:0]\n-A OUTPUT -p tcp -j OUTRIGGER_OUTPUT\n\
            -A OUTPUT -p tcp -j OUTRIGGER_OUTPUT\n-A OUTRIGGER_OUTPUT -j RETURN\nCOMMIT\n";
        let want = "*nat\n-D OUTPUT -p tcp -j OUTRIGGER_OUTPUT\n-D OUTPUT -p tcp -j OUTRIGGER_OUTPUT\n\
            -F OUTRIGGER_OUTPUT\n-F OUTRIGGER_INBOUND\n-X OUTRIGGER_OUTPUT\n-X OUTRIGGER_INBOUND\nCOMMIT\n";
        assert_eq!(removal(&Saved::read(partly)).as_deref(), Some(want));
    }

    #[test]
    fn finds_each_part_from_the_hook_to_the_redirection() {
        assert!(present(&Saved::read(SAVED)).is_whole());
        for (without, part) in [
            ("-A OUTPUT", "canary outbound selfCalls"),
            ("-A PREROUTING", "inbound"),
            ("--to-ports 15001", "canary outbound"),
            ("--to-ports 15006", "inbound selfCalls"),
            ("--dport 15019", "canary"),
            ("-o lo -p tcp -m owner", "selfCalls"),
            ("OUTRIGGER_OUTPUT -p tcp -g", "outbound"),
            ("OUTRIGGER_PREROUTING -p tcp -g", "inbound"),
        ] {
            let rest: String =
                SAVED.lines().filter(|line| !line.contains(without)).flat_map(|line| [line, "\n"]).collect();
            assert_eq!(present(&Saved::read(&rest)).missing(), part, "without {without}");
        }
    }
}
