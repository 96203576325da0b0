//! What the source's user could do if nothing here stood before it, and which line of ACL would mend that.

use redis::{Cmd, Value, cmd};
use serde::Serialize;

use super::connection::Deadline;
use super::error::{Error, Refusal};
use super::info::{Info, Product, modules};
use super::value;
use super::{Call, Redis};
use crate::finding::{Finding, Severity};
use crate::source::{Mode, is_loopback};

/// What is known of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Posture {
    /// Which server it is.
    pub product: Product,
    /// Its version; `None` where the user may not ask.
    pub version: Option<String>,
    /// `master` or `slave`, as the server says.
    pub role: Option<String>,
    /// The loaded modules: `search`, `ReJSON`.
    pub modules: Vec<String>,
    /// Who asks.
    pub user: Option<String>,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// What a user may be able to do.
struct Power {
    severity: Severity,
    finding: &'static str,
    /// What is put to the server for judgement, and never done.
    argv: &'static [&'static str],
    /// Something of the same kind that changes nothing, for servers that judge nothing.
    harmless: &'static [&'static str],
}

const WRITES: Power = Power {
    severity: Severity::High,
    finding: "may write, although the source may only be read",
    argv: &["SET", KEY, "x"],
    harmless: &["PERSIST", KEY],
};

const POWERS: [Power; 5] = [
    Power {
        severity: Severity::High,
        finding: "may change the server's configuration, and so write files",
        argv: &["CONFIG", "SET", "maxmemory", "0"],
        harmless: &["CONFIG", "GET", "maxmemory"],
    },
    Power {
        severity: Severity::High,
        finding: "may change users and their rights",
        argv: &["ACL", "SETUSER", "x"],
        harmless: &["ACL", "LIST"],
    },
    Power {
        severity: Severity::High,
        finding: "may stop the server",
        argv: &["SHUTDOWN"],
        harmless: &[],
    },
    Power {
        severity: Severity::Medium,
        finding: "may empty the database at once",
        argv: &["FLUSHALL"],
        harmless: &[],
    },
    Power {
        severity: Severity::Medium,
        finding: "may run scripts, which nobody stops",
        argv: &["EVAL", "return 1", "0"],
        harmless: &["EVAL", "return 1", "0"],
    },
];

/// Stands for a key of the source's that is not there.
const KEY: &str = "\0key";

impl Redis {
    /// Looks at what the user may do. Nothing is changed: the server is asked to judge, or asked for what changes nothing.
    ///
    /// # Errors
    /// A server that cannot be reached; what it refuses to tell is no error.
    pub async fn posture(&self, call: Call) -> Result<Posture, Error> {
        let deadline = Deadline::after(call.timeout);
        let lines = self.lines();
        match lines.ask(&cmd("PING"), deadline).await {
            // Also who may not do even that has logged in.
            Ok(_)
            | Err(Error::Server {
                refusal: Refusal::NoPerm | Refusal::UnknownCommand,
                ..
            }) => {}
            Err(error) => return Err(error),
        }
        let info = Info::ask(lines, deadline).await?;
        let (product, version) = info.product();
        let user = match lines.ask(cmd("ACL").arg("WHOAMI"), deadline).await {
            Ok(user) => value::text(user),
            Err(Error::Server { .. }) => lines.address().user.clone(),
            Err(error) => return Err(error),
        };
        let mut posture = Posture {
            product,
            version,
            role: info.get("role").map(str::to_owned),
            modules: modules(lines, deadline).await?,
            user,
            findings: Vec::new(),
        };
        self.look(&mut posture, deadline).await?;
        posture
            .findings
            .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(posture)
    }

    async fn look(&self, posture: &mut Posture, deadline: Deadline) -> Result<(), Error> {
        let user = posture.user.clone().unwrap_or_else(|| "default".to_owned());
        let mend = format!("as an administrator: {}", self.rule(&user));
        let address = self.lines().address();
        let mut found = Vec::new();
        let mut tell = |severity, finding: String, advice: &str| {
            found.push(Finding {
                severity,
                finding,
                advice: advice.to_owned(),
            });
        };
        if self.lines().lets_anybody_in(deadline).await? {
            tell(
                Severity::High,
                "whoever reaches the server is `default` without a password, and RESET makes any connection that".to_owned(),
                "as an administrator: ACL SETUSER default off, or ACL SETUSER default resetpass >PASSWORD",
            );
        }
        if address.tls.is_none() && !is_loopback(&address.host) {
            tell(
                Severity::High,
                "the way to the server is not encrypted".to_owned(),
                "have the server listen with tls-port, and leave `tls` out of the source",
            );
        }
        if user == "default" {
            tell(
                Severity::Low,
                "the source has no user of its own".to_owned(),
                &mend,
            );
        }
        let read_only = self.mode() == Mode::Read;
        let mut unknown = Vec::new();
        for power in POWERS.iter().chain(read_only.then_some(&WRITES)) {
            match self.may(&user, power, deadline).await? {
                Some(true) => tell(power.severity, format!("`{user}` {}", power.finding), &mend),
                Some(false) => {}
                None => unknown.push(power.argv[0]),
            }
        }
        if self.prefix().is_some() {
            let beyond = Power {
                severity: Severity::Medium,
                finding: "",
                argv: &["GET", "\x01 a key of nobody"],
                harmless: &["GET", "\x01 a key of nobody"],
            };
            if self.may(&user, &beyond, deadline).await? == Some(true) {
                tell(
                    beyond.severity,
                    format!("`{user}` may read keys without the source's prefix"),
                    &mend,
                );
            }
        }
        if !unknown.is_empty() {
            tell(
                Severity::Low,
                format!(
                    "whether `{user}` may {} is not known: the server does not tell",
                    unknown.join(", ")
                ),
                "an administrator sees it with ACL GETUSER",
            );
        }
        if posture.role.as_deref() == Some("slave") && !read_only {
            tell(
                Severity::Low,
                "this server is a replica and takes no writes".to_owned(),
                "name the primary in the source's url",
            );
        }
        posture.findings = found;
        Ok(())
    }

    /// Whether the user may; `None` where that cannot be found out.
    async fn may(
        &self,
        user: &str,
        power: &Power,
        deadline: Deadline,
    ) -> Result<Option<bool>, Error> {
        let mut judged = cmd("ACL");
        judged.arg("DRYRUN").arg(user);
        self.put(&mut judged, power.argv);
        match self.lines().ask(&judged, deadline).await {
            Ok(Value::Okay) => return Ok(Some(true)),
            // Why not.
            Ok(_) => return Ok(Some(false)),
            Err(Error::Server { .. }) => {}
            Err(error) => return Err(error),
        }
        let [name, arguments @ ..] = power.harmless else {
            return Ok(None);
        };
        let mut harmless = cmd(name);
        self.put(&mut harmless, arguments);
        match self.lines().ask(&harmless, deadline).await {
            Ok(_) => Ok(Some(true)),
            Err(error) => match error.refusal() {
                Some(Refusal::NoPerm | Refusal::UnknownCommand) => Ok(Some(false)),
                Some(Refusal::ReadOnlyReplica) => Ok(Some(true)),
                Some(_) => Ok(None),
                None => Err(error),
            },
        }
    }

    fn put(&self, command: &mut Cmd, arguments: &[&str]) {
        for argument in arguments {
            if *argument == KEY {
                let prefix = self.prefix().map(|prefix| prefix.0.as_slice());
                let key = [prefix.unwrap_or_default(), b"\0nobody has this key"].concat();
                command.arg(key);
            } else {
                command.arg(argument);
            }
        }
    }

    /// The line that gives a user what the source needs, and no more.
    fn rule(&self, user: &str) -> String {
        let user = if user == "default" { "agent" } else { user };
        let keys = match self.prefix() {
            Some(prefix) => format!("~{}*", prefix.for_message()),
            None => "~*".to_owned(),
        };
        let channels: Vec<String> = self
            .inner
            .streams
            .iter()
            .map(|name| format!(" &{name}"))
            .collect();
        let channels = channels.concat();
        let writes = match self.mode() {
            Mode::Read => "",
            Mode::Write => " +@write +@transaction",
        };
        format!(
            "ACL SETUSER {user} reset on >PASSWORD {keys}{channels} -@all +@read{writes} +@connection +@pubsub -@dangerous -@admin \
             -@scripting +command|info +info +memory|usage"
        )
    }
}
