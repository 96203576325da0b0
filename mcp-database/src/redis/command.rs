//! Which commands an agent may send as it writes them: only those that are known here, by their full name, with what they do and where
//! their keys stand.

use serde::Serialize;

use super::value::Blob;

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It reads.
    Read,
    /// It changes what is there.
    Write,
    /// It takes away what nobody gets back: keys, or all behind a limit. It has to be confirmed.
    Destructive,
    /// It is never sent.
    Never,
}

/// Where the keys of a command stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// It has none, and tells nothing about any.
    None,
    /// Which keys it is about cannot be told before.
    Any,
    /// The first argument.
    First,
    /// The argument behind the name of the subcommand, or behind an operator.
    Second,
    /// The first two arguments.
    Two,
    /// Every argument.
    All,
    /// Every argument but the last.
    AllButLast,
    /// Every argument behind the first.
    AllButFirst,
    /// Every other argument.
    Pairs,
    /// So many as the argument at this place says, behind it.
    Counted(usize),
    /// A target, and then so many as the second argument says.
    IntoCounted,
}

/// Commands that give the same elements again and again where their count is below 0: the server makes all of the answer first, and
/// nobody else is served meanwhile.
const REPEATING: [&str; 3] = ["hrandfield", "srandmember", "zrandmember"];
/// The most that these may be asked for.
const MOST_RANDOM: u32 = 10_000;

/// Commands that look at so many keys or elements at once as their COUNT says, and serve nobody else meanwhile.
const SCANNING: [&str; 4] = ["hscan", "scan", "sscan", "zscan"];

/// Whether the COUNT of such a command, whose cursor is the argument at `cursor`, is more than may be asked for.
fn has_large_count(argv: &[Blob], cursor: usize) -> bool {
    let mut options = argv.iter().skip(cursor + 1);
    while let Some(option) = options.next() {
        let is = |name: &[u8]| option.0.eq_ignore_ascii_case(name);
        if is(b"count") && options.next().is_some_and(|count| !is_small(count)) {
            return true;
        }
        if is(b"match") || is(b"type") {
            options.next();
        }
    }
    false
}

fn is_small(count: &Blob) -> bool {
    let count = std::str::from_utf8(&count.0).ok();
    let count = count.and_then(|count| count.parse::<u32>().ok());
    count.is_some_and(|count| count <= MOST_RANDOM)
}

/// A command that may not be sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GateError {
    /// Nothing.
    #[error("there is no command; the first argument is its name")]
    Empty,
    /// A name that is none.
    #[error(
        "`{0}` is no name of a command; a name has letters, digits, `.`, `_` and `-`, and its subcommand is the next argument"
    )]
    Name(String),
    /// A command that is not known, or known to be no good.
    #[error("{name} is not sent: {reason}")]
    Never {
        /// In capitals, with its subcommand.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A write to a source that is read.
    #[error("{0} changes data, and this source may only be read")]
    ReadSource(String),
    /// A count that has the server make an answer without bounds.
    #[error(
        "the count of {0} is not between 0 and {MOST_RANDOM}; the server would serve nobody else meanwhile"
    )]
    Count(String),
    /// A destructive command that nobody has confirmed.
    #[error("{0} takes data away for good and has to be confirmed")]
    Unconfirmed(String),
    /// The server says it does something else than it should.
    #[error("{name} is not sent: the server says of it `{said}`")]
    Flags {
        /// In capitals.
        name: String,
        /// A flag or a category; empty where one is missing.
        said: String,
    },
    /// Keys that cannot be found, where they have to be known.
    #[error(
        "{0} is not sent: its keys cannot be told beforehand, and this source has keys of one prefix only"
    )]
    Keyless(String),
}

/// A command that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// In small letters, with its subcommand: `xinfo|stream`.
    pub name: String,
    /// What it does.
    pub class: Class,
    keys: Keys,
}

/// Commands whose name is not complete without the next argument.
const PARENTS: [&str; 17] = [
    "acl", "client", "cluster", "command", "config", "debug", "function", "latency", "memory",
    "module", "object", "pubsub", "script", "sentinel", "slowlog", "xgroup", "xinfo",
];

const READS: [(&str, Keys); 93] = [
    ("bitcount", Keys::First),
    ("bitfield_ro", Keys::First),
    ("bitpos", Keys::First),
    ("dbsize", Keys::None),
    ("dump", Keys::First),
    ("echo", Keys::None),
    ("exists", Keys::All),
    ("expiretime", Keys::First),
    ("geodist", Keys::First),
    ("geohash", Keys::First),
    ("geopos", Keys::First),
    ("georadius_ro", Keys::First),
    ("georadiusbymember_ro", Keys::First),
    ("geosearch", Keys::First),
    ("get", Keys::First),
    ("getbit", Keys::First),
    ("getrange", Keys::First),
    ("hexists", Keys::First),
    ("hexpiretime", Keys::First),
    ("hget", Keys::First),
    ("hgetall", Keys::First),
    ("hkeys", Keys::First),
    ("hlen", Keys::First),
    ("hmget", Keys::First),
    ("hpttl", Keys::First),
    ("hrandfield", Keys::First),
    ("hscan", Keys::First),
    ("hstrlen", Keys::First),
    ("httl", Keys::First),
    ("hvals", Keys::First),
    ("json.arrindex", Keys::First),
    ("json.arrlen", Keys::First),
    ("json.get", Keys::First),
    ("json.mget", Keys::AllButLast),
    ("json.objkeys", Keys::First),
    ("json.objlen", Keys::First),
    ("json.strlen", Keys::First),
    ("json.type", Keys::First),
    ("lcs", Keys::Two),
    ("lindex", Keys::First),
    ("llen", Keys::First),
    ("lpos", Keys::First),
    ("lrange", Keys::First),
    ("memory|usage", Keys::Second),
    ("mget", Keys::All),
    ("object|encoding", Keys::Second),
    ("object|freq", Keys::Second),
    ("object|idletime", Keys::Second),
    ("object|refcount", Keys::Second),
    ("pexpiretime", Keys::First),
    ("pfcount", Keys::All),
    ("ping", Keys::None),
    ("pttl", Keys::First),
    ("randomkey", Keys::Any),
    ("scan", Keys::Any),
    ("scard", Keys::First),
    ("sdiff", Keys::All),
    ("sinter", Keys::All),
    ("sintercard", Keys::Counted(1)),
    ("sismember", Keys::First),
    ("smembers", Keys::First),
    ("smismember", Keys::First),
    ("srandmember", Keys::First),
    ("sscan", Keys::First),
    ("strlen", Keys::First),
    ("sunion", Keys::All),
    ("time", Keys::None),
    ("ttl", Keys::First),
    ("type", Keys::First),
    ("xinfo|consumers", Keys::Second),
    ("xinfo|groups", Keys::Second),
    ("xinfo|stream", Keys::Second),
    ("xlen", Keys::First),
    ("xpending", Keys::First),
    ("xrange", Keys::First),
    ("xrevrange", Keys::First),
    ("zcard", Keys::First),
    ("zcount", Keys::First),
    ("zdiff", Keys::Counted(1)),
    ("zinter", Keys::Counted(1)),
    ("zintercard", Keys::Counted(1)),
    ("zlexcount", Keys::First),
    ("zmscore", Keys::First),
    ("zrandmember", Keys::First),
    ("zrange", Keys::First),
    ("zrangebylex", Keys::First),
    ("zrangebyscore", Keys::First),
    ("zrank", Keys::First),
    ("zrevrange", Keys::First),
    ("zrevrank", Keys::First),
    ("zscan", Keys::First),
    ("zscore", Keys::First),
    ("zunion", Keys::Counted(1)),
];

const WRITES: [(&str, Keys); 72] = [
    ("append", Keys::First),
    ("bitfield", Keys::First),
    ("bitop", Keys::AllButFirst),
    ("decr", Keys::First),
    ("decrby", Keys::First),
    ("expire", Keys::First),
    ("expireat", Keys::First),
    ("geoadd", Keys::First),
    ("geosearchstore", Keys::Two),
    ("getex", Keys::First),
    ("getset", Keys::First),
    ("hdel", Keys::First),
    ("hexpire", Keys::First),
    ("hincrby", Keys::First),
    ("hincrbyfloat", Keys::First),
    ("hmset", Keys::First),
    ("hpersist", Keys::First),
    ("hpexpire", Keys::First),
    ("hset", Keys::First),
    ("hsetnx", Keys::First),
    ("incr", Keys::First),
    ("incrby", Keys::First),
    ("incrbyfloat", Keys::First),
    ("json.arrappend", Keys::First),
    ("json.arrinsert", Keys::First),
    ("json.arrpop", Keys::First),
    ("json.merge", Keys::First),
    ("json.numincrby", Keys::First),
    ("json.set", Keys::First),
    ("json.strappend", Keys::First),
    ("json.toggle", Keys::First),
    ("linsert", Keys::First),
    ("lmove", Keys::Two),
    ("lmpop", Keys::Counted(1)),
    ("lpop", Keys::First),
    ("lpush", Keys::First),
    ("lpushx", Keys::First),
    ("lrem", Keys::First),
    ("lset", Keys::First),
    ("mset", Keys::Pairs),
    ("msetnx", Keys::Pairs),
    ("persist", Keys::First),
    ("pexpire", Keys::First),
    ("pexpireat", Keys::First),
    ("pfadd", Keys::First),
    ("pfmerge", Keys::All),
    ("psetex", Keys::First),
    ("rpop", Keys::First),
    ("rpoplpush", Keys::Two),
    ("rpush", Keys::First),
    ("rpushx", Keys::First),
    ("sadd", Keys::First),
    ("set", Keys::First),
    ("setbit", Keys::First),
    ("setex", Keys::First),
    ("setnx", Keys::First),
    ("setrange", Keys::First),
    ("smove", Keys::Two),
    ("spop", Keys::First),
    ("srem", Keys::First),
    ("xack", Keys::First),
    ("xadd", Keys::First),
    ("xautoclaim", Keys::First),
    ("xclaim", Keys::First),
    ("xgroup|create", Keys::Second),
    ("xgroup|createconsumer", Keys::Second),
    ("zadd", Keys::First),
    ("zincrby", Keys::First),
    ("zmpop", Keys::Counted(1)),
    ("zpopmax", Keys::First),
    ("zpopmin", Keys::First),
    ("zrem", Keys::First),
];

const DESTRUCTIVE: [(&str, Keys); 25] = [
    ("del", Keys::All),
    ("getdel", Keys::First),
    ("json.clear", Keys::First),
    ("json.del", Keys::First),
    ("ltrim", Keys::First),
    ("rename", Keys::Two),
    ("renamenx", Keys::Two),
    ("sdiffstore", Keys::All),
    ("sinterstore", Keys::All),
    ("sunionstore", Keys::All),
    ("unlink", Keys::All),
    ("xdel", Keys::First),
    ("xgroup|delconsumer", Keys::Second),
    ("xgroup|destroy", Keys::Second),
    ("xgroup|setid", Keys::Second),
    ("xsetid", Keys::First),
    ("xtrim", Keys::First),
    ("zdiffstore", Keys::IntoCounted),
    ("zinterstore", Keys::IntoCounted),
    ("zrangestore", Keys::Two),
    ("zremrangebylex", Keys::First),
    ("zremrangebyrank", Keys::First),
    ("zremrangebyscore", Keys::First),
    ("zunionstore", Keys::IntoCounted),
    ("json.forget", Keys::First),
];

impl Command {
    /// Finds what a command is by its name, and by its subcommand where it has one; whatever is not known is [`Class::Never`].
    ///
    /// # Errors
    /// What has no name that could be one.
    pub fn of(argv: &[Blob]) -> Result<Self, GateError> {
        let name = word(argv.first().ok_or(GateError::Empty)?)?;
        let name = match argv.get(1) {
            Some(sub) if PARENTS.contains(&name.as_str()) => format!("{name}|{}", word(sub)?),
            _ => name,
        };
        let (class, keys) = [
            (Class::Read, &READS[..]),
            (Class::Write, &WRITES[..]),
            (Class::Destructive, &DESTRUCTIVE[..]),
        ]
        .into_iter()
        .find_map(|(class, list)| {
            let (_, keys) = list.iter().find(|(known, _)| *known == name)?;
            Some((class, *keys))
        })
        .unwrap_or((Class::Never, Keys::Any));
        if REPEATING.contains(&name.as_str()) && argv.get(2).is_some_and(|count| !is_small(count)) {
            return Err(GateError::Count(name.to_ascii_uppercase()));
        }
        let cursor = if name == "scan" { 1 } else { 2 };
        if SCANNING.contains(&name.as_str()) && has_large_count(argv, cursor) {
            return Err(GateError::Count(name.to_ascii_uppercase()));
        }
        Ok(Self { name, class, keys })
    }

    /// The name as people write it.
    pub fn shown(&self) -> String {
        self.name.to_ascii_uppercase().replace('|', " ")
    }

    /// Whether it may be sent to a source, before anybody asks the server.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, writable: bool, confirmed: bool) -> Result<(), GateError> {
        let never = |reason| {
            Err(GateError::Never {
                name: self.shown(),
                reason,
            })
        };
        match self.class {
            Class::Never => return never(reason(&self.name)),
            Class::Write | Class::Destructive if !writable => {
                return Err(GateError::ReadSource(self.shown()));
            }
            Class::Destructive if !confirmed => return Err(GateError::Unconfirmed(self.shown())),
            Class::Read | Class::Write | Class::Destructive => {}
        }
        Ok(())
    }

    /// The keys it names, if they can be told.
    pub fn keys<'a>(&self, argv: &'a [Blob]) -> Option<Vec<&'a Blob>> {
        let counted = |at: usize| {
            let count: usize = std::str::from_utf8(&argv.get(at)?.0).ok()?.parse().ok()?;
            let end = (at + 1).checked_add(count)?;
            argv.get(at + 1..end).map(|keys| keys.iter().collect())
        };
        let keys: Vec<&Blob> = match self.keys {
            Keys::None => return Some(Vec::new()),
            Keys::Any => return None,
            Keys::First => argv.get(1..2)?.iter().collect(),
            Keys::Second => argv.get(2..3)?.iter().collect(),
            Keys::Two => argv.get(1..3)?.iter().collect(),
            Keys::All => argv.get(1..)?.iter().collect(),
            Keys::AllButLast => argv.get(1..argv.len().checked_sub(1)?)?.iter().collect(),
            Keys::AllButFirst => argv.get(2..)?.iter().collect(),
            Keys::Pairs => argv.get(1..)?.iter().step_by(2).collect(),
            Keys::Counted(at) => counted(at)?,
            Keys::IntoCounted => {
                let mut keys = counted(2)?;
                keys.push(argv.get(1)?);
                keys
            }
        };
        (!keys.is_empty()).then_some(keys)
    }

    /// Whether it need not be told by the server to be a read: it is about no data.
    pub(super) fn is_about_no_data(&self) -> bool {
        matches!(self.name.as_str(), "echo" | "ping" | "time")
    }
}

fn word(blob: &Blob) -> Result<String, GateError> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    if blob.0.is_empty() || blob.0.len() > 64 || !blob.0.iter().all(is_word) {
        return Err(GateError::Name(blob.for_message()));
    }
    Ok(String::from_utf8_lossy(&blob.0).to_ascii_lowercase())
}

fn reason(name: &str) -> &'static str {
    let parent = name.split('|').next().unwrap_or(name);
    match parent {
        "keys" => "it stops the whole server; read by a pattern instead",
        "flushall" | "flushdb" | "swapdb" | "migrate" | "restore" | "move" | "copy" => {
            "it changes far more than one key; the operator does that"
        }
        "eval" | "eval_ro" | "evalsha" | "evalsha_ro" | "fcall" | "fcall_ro" | "script"
        | "function" => "what a script does cannot be told beforehand",
        "auth" | "hello" | "reset" | "select" | "quit" | "client" | "multi" | "exec"
        | "discard" | "watch" | "unwatch" | "readonly" | "readwrite" | "asking" => {
            "it would change the connection that others use; a source has one user and one database"
        }
        "subscribe" | "psubscribe" | "ssubscribe" | "unsubscribe" | "punsubscribe" | "publish"
        | "spublish" | "pubsub" | "monitor" => "channels have operations of their own",
        "blpop" | "brpop" | "brpoplpush" | "blmove" | "blmpop" | "bzpopmin" | "bzpopmax"
        | "bzmpop" | "xread" | "xreadgroup" | "wait" | "waitaof" => {
            "it waits; messages are read from streams, with an operation of their own"
        }
        "ft.search" | "ft.aggregate" => {
            "search has an operation of its own, which escapes what is searched for"
        }
        "sort" | "sort_ro" | "georadius" | "georadiusbymember" => {
            "it reads or stores keys that its name does not tell"
        }
        _ => "it is not one of the commands that are known to be safe",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Vec<Blob> {
        line.split(' ').map(Blob::from).collect()
    }

    fn class(line: &str) -> anyhow::Result<Class> {
        Ok(Command::of(&argv(line))?.class)
    }

    #[test]
    fn a_command_is_what_its_full_name_says() -> anyhow::Result<()> {
        for (line, expected) in [
            ("get a", Class::Read),
            ("GeT a", Class::Read),
            ("XINFO STREAM a", Class::Read),
            ("memory USAGE a", Class::Read),
            ("set a b", Class::Write),
            ("xgroup create a b $", Class::Write),
            ("del a", Class::Destructive),
            ("xgroup destroy a b", Class::Destructive),
        ] {
            assert_eq!(class(line)?, expected, "{line}");
        }
        Ok(())
    }

    #[test]
    fn what_may_never_be_sent_is_not_known() {
        for line in [
            "keys *",
            "KeYs *",
            "flushall",
            "FLUSHDB async",
            "eval x 0",
            "eval_ro x 0",
            "evalsha x 0",
            "fcall f 0",
            "fcall_ro f 0",
            "config get *",
            "config set a b",
            "debug sleep 1",
            "shutdown nosave",
            "reset",
            "auth a b",
            "hello 3",
            "select 1",
            "quit",
            "multi",
            "exec",
            "client reply off",
            "client kill x",
            "client",
            "monitor",
            "sync",
            "psync a 1",
            "memory purge",
            "memory doctor",
            "memory",
            "acl setuser a",
            "acl whoami",
            "script load x",
            "function load x",
            "module load x",
            "replicaof no one",
            "slaveof no one",
            "save",
            "bgsave",
            "bgrewriteaof",
            "swapdb 0 1",
            "migrate a",
            "restore a 0 b",
            "move a 1",
            "copy a b",
            "sort a",
            "sort_ro a",
            "blpop a 0",
            "wait 1 0",
            "xreadgroup group a b streams c >",
            "subscribe a",
            "publish a b",
            "spublish a b",
            "cluster reset",
            "failover",
            "latency reset",
            "slowlog reset",
            "object help",
            "object",
            "georadius a",
            "pfdebug a",
            "lolwut",
            "info",
            "command",
            "config|get",
            "nosuch",
            "touch a",
        ] {
            let Ok(command) = Command::of(&argv(line)) else {
                continue;
            };
            assert_eq!(command.class, Class::Never, "{line}");
            assert!(command.check(true, true).is_err(), "{line}");
        }
    }

    #[test]
    fn a_name_has_no_padding_and_no_other_signs() {
        for name in [
            "",
            " get",
            "get ",
            "get\n",
            "get\0",
            "xinfo|stream",
            "GET\u{200b}",
            "ＧＥＴ",
            "get\r\nset",
        ] {
            let error = Command::of(&[Blob::from(name), Blob::from("a")]);
            assert!(matches!(error, Err(GateError::Name(_))), "{name:?}");
        }
        let sub = [Blob::from("xinfo"), Blob::from(" stream"), Blob::from("a")];
        assert!(matches!(Command::of(&sub), Err(GateError::Name(_))));
        assert_eq!(Command::of(&[]), Err(GateError::Empty));
        let random = |count: &str| Command::of(&["SRANDMEMBER", "s", count].map(Blob::from));
        assert!(random("10").is_ok());
        for count in ["-1000000", "10001", "x"] {
            assert_eq!(
                random(count),
                Err(GateError::Count("SRANDMEMBER".to_owned()))
            );
        }
        for argv in [&["SCAN", "0", "COUNT"][..], &["hscan", "h", "0", "count"]] {
            let with = |count| -> Vec<Blob> {
                let argv = argv.iter().copied().chain([count]);
                argv.map(Blob::from).collect()
            };
            assert!(Command::of(&with("1000")).is_ok());
            let many = Command::of(&with("1000000000"));
            assert!(matches!(many, Err(GateError::Count(_))), "{many:?}");
        }
        // Keys and patterns that are called so.
        for argv in ["SSCAN count 100000", "SCAN 0 MATCH count COUNT 10"] {
            let argv: Vec<Blob> = argv.split(' ').map(Blob::from).collect();
            assert!(Command::of(&argv).is_ok());
        }
        let long = [Blob::from("x".repeat(1_000).as_str())];
        assert!(Command::of(&long).is_err());
    }

    #[test]
    fn keys_are_found_where_redis_finds_them() -> anyhow::Result<()> {
        for (line, expected) in [
            ("get a", Some("a")),
            ("get", None),
            ("mget a b c", Some("a b c")),
            ("mset a 1 b 2", Some("a b")),
            ("zinterstore d 2 a b weights 1 2", Some("a b d")),
            ("zinterstore d 3 a b", None),
            ("zunion 18446744073709551615 a", None),
            ("sintercard 2 a b limit 1", Some("a b")),
            ("lmpop 2 a b left", Some("a b")),
            ("bitop and d a b", Some("d a b")),
            ("object encoding a", Some("a")),
            ("json.mget a b $", Some("a b")),
            ("scan 0", None),
            ("dbsize", Some("")),
        ] {
            let argv = argv(line);
            let keys = Command::of(&argv)?.keys(&argv).map(|keys| {
                let keys: Vec<String> = keys.iter().map(|key| key.for_message()).collect();
                keys.join(" ")
            });
            assert_eq!(keys.as_deref(), expected, "{line}");
        }
        Ok(())
    }

    #[test]
    fn a_read_source_reads_and_destruction_has_to_be_confirmed() -> anyhow::Result<()> {
        let check = |line: &str, writable, confirmed| {
            let argv = argv(line);
            Command::of(&argv).and_then(|command| command.check(writable, confirmed))
        };
        check("get a", false, false)?;
        check("set a b", true, false)?;
        check("del a", true, true)?;
        assert_eq!(
            check("set a b", false, true),
            Err(GateError::ReadSource("SET".to_owned()))
        );
        assert_eq!(
            check("xgroup destroy a b", true, false),
            Err(GateError::Unconfirmed("XGROUP DESTROY".to_owned()))
        );
        Ok(())
    }

    #[test]
    fn no_command_is_on_two_lists() {
        let mut names: Vec<&str> = [&READS[..], &WRITES[..], &DESTRUCTIVE[..]]
            .concat()
            .iter()
            .map(|(name, _)| *name)
            .collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
