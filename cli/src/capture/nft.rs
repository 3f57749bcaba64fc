//! The rules as nftables: one table `outrigger` in each family, replaced in one transaction of `nft -f -`.

use anyhow::Result;
use ipnet::IpNet;

use super::{
    loaded::{Loaded, Present},
    rules::{Capture, Chain, Family, Match, Name, Rule, Then},
    tool::Tool,
};

/// nftables with the `nft` binary.
#[derive(Debug)]
pub struct Nft(Tool);

impl Nft {
    /// `None` where there is no `nft`, or the kernel (or a missing capability) refuses it.
    pub fn find() -> Option<Result<Self>> {
        let nft = Self(Tool::find("nft")?);
        Some(nft.tables().map(|_| nft))
    }

    /// Loads exactly these rules in one transaction, whatever an earlier load left behind.
    pub fn apply(&self, capture: &Capture) -> Result<()> {
        self.0.feed(&["-f", "-"], &self.script(capture)?)
    }

    /// What [`Self::apply`] loads now.
    pub fn script(&self, capture: &Capture) -> Result<String> {
        let mut script = render(capture);
        for family in self.tables()? {
            if !capture.families().contains(&family) {
                script.push_str(&delete(family));
            }
        }
        Ok(script)
    }

    /// Deletes our tables in one transaction. Returns whether there were any.
    pub fn remove(&self) -> Result<bool> {
        let tables = self.tables()?;
        if tables.is_empty() {
            return Ok(false);
        }
        self.0.feed(&["-f", "-"], &tables.into_iter().map(delete).collect::<String>())?;
        Ok(true)
    }

    pub fn loaded(&self) -> Result<Vec<Loaded>> {
        let mut found = vec![];
        for family in self.tables()? {
            let rules = self.0.read(&["list", "table", keyword(family), TABLE])?;
            found.push(Loaded { tool: "nft", family, present: present(&rules), rules });
        }
        Ok(found)
    }

    /// The families that hold a table of ours.
    fn tables(&self) -> Result<Vec<Family>> {
        let listed = self.0.read(&["list", "tables"])?;
        let ours = |family: &Family| {
            let line = format!("table {} {TABLE}", keyword(*family));
            listed.lines().any(|found| found.trim() == line)
        };
        Ok(Family::ALL.into_iter().filter(ours).collect())
    }
}

/// The whole script. A table is first named, so that deleting it cannot fail, then deleted, then made anew.
pub fn render(capture: &Capture) -> String {
    let mut script = String::new();
    for &family in capture.families() {
        script.push_str(&format!("table {} {TABLE}\n", keyword(family)));
        script.push_str(&delete(family));
        let chains = capture.chains(family).iter().map(|each| chain(each, family)).collect::<Vec<_>>();
        script.push_str(&format!("table {} {TABLE} {{\n{}}}\n", keyword(family), chains.join("\n")));
    }
    script
}

fn delete(family: Family) -> String {
    format!("delete table {} {TABLE}\n", keyword(family))
}

fn chain(chain: &Chain, family: Family) -> String {
    let mut text = format!("\tchain {} {{\n", chain.name.word());
    if chain.name.is_hooked() {
        // -100 is where destinations are rewritten; its name `dstnat` is not accepted for output everywhere.
        text.push_str(&format!("\t\ttype nat hook {} priority -100; policy accept;\n", chain.name.word()));
    }
    for each in &chain.rules {
        text.push_str(&format!("\t\t{}\n", rule(each, family)));
    }
    text.push_str("\t}\n");
    text
}

fn rule(rule: &Rule, family: Family) -> String {
    let mut words: Vec<String> = rule.when.iter().map(|each| condition(*each, family)).collect();
    words.push(match rule.then {
        Then::Return => "return".into(),
        Then::Goto(chain) => format!("goto {}", chain.word()),
        Then::Redirect(port) => format!("redirect to :{port}"),
    });
    let mut text = words.join(" ");
    if let Some(purpose) = rule.purpose {
        text.push_str(&format!(" comment \"{purpose}\""));
    }
    text
}

fn condition(condition: Match, family: Family) -> String {
    let ip = keyword(family);
    match condition {
        Match::NotFrom(cidr) => format!("{ip} saddr != {}", address(cidr)),
        Match::To(cidr) => format!("{ip} daddr {}", address(cidr)),
        Match::NotTo(cidr) => format!("{ip} daddr != {}", address(cidr)),
        Match::InLoopback => "iifname \"lo\"".into(),
        Match::OutLoopback => "oifname \"lo\"".into(),
        Match::Tcp => "meta l4proto tcp".into(),
        Match::Port(port) => format!("tcp dport {port}"),
        Match::User(uid) => format!("meta skuid {uid}"),
    }
}

/// As nft lists it: a single address has no prefix length.
fn address(cidr: IpNet) -> String {
    if cidr.prefix_len() == cidr.max_prefix_len() { cidr.addr().to_string() } else { cidr.to_string() }
}

/// nft's word for the family.
fn keyword(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Which parts a listed table holds, each from the kernel's hook to the redirection.
fn present(listing: &str) -> Present {
    let mut chain = "";
    let (mut hooked, mut named, mut redirects) = (vec![], vec![], vec![]);
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ").and_then(|rest| rest.strip_suffix(" {")) {
            chain = name;
        } else if line.starts_with("type nat hook ") {
            hooked.push(chain);
        } else if let Some((_, purpose)) = line.split_once("comment ") {
            named.push((chain, purpose.trim_matches('"')));
        } else if line.contains("redirect to :") {
            redirects.push(chain);
        }
    }
    let whole = |hook: Name, purpose: &str, target: Name| {
        hooked.contains(&hook.word())
            && named.contains(&(hook.word(), purpose))
            && redirects.contains(&target.word())
    };
    Present {
        canary: whole(Name::Output, "canary", Name::Outbound),
        outbound: whole(Name::Output, "outbound", Name::Outbound),
        inbound: whole(Name::Prerouting, "inbound", Name::Inbound),
        self_calls: whole(Name::Output, "self-call", Name::Inbound),
    }
}

const TABLE: &str = "outrigger";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_whole_script() {
        assert_eq!(render(&Capture::bare()), include_str!("golden/bare.nft"));
        assert_eq!(render(&Capture::with_everything()), include_str!("golden/everything.nft"));
    }

    /// The order of listing is nft's own; what the kernel holds is tested in namespaces.
    #[test]
    fn finds_each_part_from_the_hook_to_the_redirection() {
        let script = render(&Capture::bare());
        assert!(present(&script).is_whole());
        for (without, part) in [
            ("type nat hook output priority -100; policy accept;", "canary outbound selfCalls"),
            ("type nat hook prerouting priority -100; policy accept;", "inbound"),
            ("redirect to :15001", "canary outbound"),
            ("redirect to :15006", "inbound selfCalls"),
            (r#"comment "canary""#, "canary"),
            (r#"comment "self-call""#, "selfCalls"),
            (r#"comment "outbound""#, "outbound"),
            (r#"comment "inbound""#, "inbound"),
        ] {
            let rest: String =
                script.lines().filter(|line| !line.contains(without)).flat_map(|line| [line, "\n"]).collect();
            assert_eq!(present(&rest).missing(), part, "without {without}");
        }
    }
}
