//! What server, launcher and init say to each other: one order for a jail, then small reports.

use std::ffi::CString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::codec::{Reader, Writer, signed};
use super::layer::{CgroupVersion, LayerSet};
use super::pinned::Watched;
use super::{
    Access, CommandSpec, JailError, JailSpec, Layer, Lifetime, Limits, Masked, Mode, Network,
    Stdin, TerminalSize,
};

/// Most bytes of an order: arguments, environment and paths together. The kernel's own limit of arguments is 2 MiB by default.
const MAX_ORDER: usize = 8 << 20;

/// A jail as the launcher and init are told to make it; its descriptors travel beside it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) command: CommandOrder,
    pub(super) lifetime: Lifetime,
    pub(super) workspace: Option<WorkspaceOrder>,
    pub(super) read_only: Vec<PathBuf>,
    pub(super) inputs: Vec<InputOrder>,
    pub(super) protected: Vec<PathBuf>,
    pub(super) masked: Vec<Masked>,
    /// Whether the listener of its filter goes to the server, with every look at a file.
    pub(super) observed: bool,
    /// Who makes what stands around its processes.
    pub(super) surroundings: Surroundings,
    /// The layers it is to have.
    pub(super) layers: LayerSet,
    pub(super) published: Vec<u16>,
    pub(super) network: Network,
    pub(super) limits: Limits,
    pub(super) linger: Duration,
}

/// Who makes namespaces and root.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Surroundings {
    /// Launcher and init.
    Own,
    /// A container engine did: init starts inside.
    Container {
        /// The namespaces of the server, by their inodes, in the order of [`NAMESPACES`]: the jail's must be others.
        outside: Vec<u64>,
        /// What must stand there, the workspace first: the engine was told paths, which somebody could have turned meanwhile.
        watched: Vec<Watched>,
    },
    /// Nobody: they are the host's.
    Host {
        /// A directory for what commands put into `/tmp` otherwise; made by init, and removed by it.
        tmp: PathBuf,
    },
}

/// The namespaces that a container engine makes, as the links of `/proc/self/ns` and as layers.
pub(super) const NAMESPACES: [(&str, Layer); 7] = [
    ("user", Layer::UserNs),
    ("mnt", Layer::MntNs),
    ("pid", Layer::PidNs),
    ("ipc", Layer::IpcNs),
    ("uts", Layer::UtsNs),
    ("net", Layer::NetNs),
    ("cgroup", Layer::CgroupNs),
];

impl Surroundings {
    /// How a jail is made with them.
    pub(super) fn mode(&self) -> Mode {
        match self {
            Self::Own => Mode::Strict,
            Self::Container { .. } => Mode::Container,
            Self::Host { .. } => Mode::NoUserns,
        }
    }

    fn write(&self, writer: &mut Writer) -> Result<(), JailError> {
        match self {
            Self::Own => writer.number(0),
            Self::Container { outside, watched } => {
                writer.number(1);
                writer.list(outside, |writer, namespace| {
                    writer.number(*namespace);
                    Ok(())
                })?;
                writer.list(watched, |writer, watched| watched.write(writer))?;
            }
            Self::Host { tmp } => {
                writer.number(2);
                writer.path(tmp)?;
            }
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.number()? {
            0 => Self::Own,
            1 => Self::Container {
                outside: reader.list(Reader::number)?,
                watched: reader.list(Watched::read)?,
            },
            2 => Self::Host {
                tmp: reader.path()?,
            },
            _ => return None,
        })
    }
}

impl Order {
    /// Whether the jail is to have this layer.
    pub(super) fn has(&self, layer: Layer) -> bool {
        self.layers.contains(layer)
    }
}

/// A command as init is told to start it. Without a terminal its three streams are descriptors beside the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandOrder {
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) cwd: PathBuf,
    pub(super) terminal: Option<TerminalSize>,
}

/// The workspace; the pinned directory is a descriptor beside the order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WorkspaceOrder {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) access: Access,
    /// Where an overlay keeps what is changed; the pinned directory is one more descriptor.
    pub(super) overlay: Option<PathBuf>,
}

/// A pinned input; its bytes are a sealed descriptor beside the order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InputOrder {
    pub(super) target: PathBuf,
    pub(super) length: u64,
}

/// The bytes of the order for `spec`, made with these surroundings.
pub(super) fn encode_order(
    spec: &JailSpec,
    surroundings: &Surroundings,
) -> Result<Vec<u8>, JailError> {
    let mut writer = Writer::default();
    write_command(&mut writer, &spec.command)?;
    writer.number(u64::from(spec.lifetime == Lifetime::Kept));
    writer.number(match spec.network {
        Network::None => 0,
        Network::Loopback => 1,
        Network::Proxy => 2,
        Network::Host => 3,
    });
    match &spec.workspace {
        None => writer.number(0),
        Some(workspace) => {
            writer.number(match workspace.access {
                Access::ReadOnly => 1,
                Access::ReadWrite => 2,
            });
            writer.path(&workspace.source)?;
            writer.path(&workspace.target)?;
            let overlay: Vec<_> = workspace.overlay.iter().collect();
            writer.list(&overlay, |writer, overlay| writer.path(&overlay.source))?;
        }
    }
    writer.list(&spec.read_only, |writer, path| writer.path(path))?;
    writer.list(&spec.inputs, |writer, input| {
        writer.number(input.length);
        writer.path(&input.target)
    })?;
    writer.list(&spec.protected, |writer, path| writer.path(path))?;
    writer.list(&spec.masked, |writer, masked| {
        writer.number(u64::from(masked.is_directory));
        writer.path(&masked.path)
    })?;
    writer.number(u64::from(spec.observe.is_some()));
    surroundings.write(&mut writer)?;
    writer.number(u64::from(spec.layers(surroundings.mode()).0));
    writer.list(&spec.published, |writer, port| {
        writer.number(u64::from(*port));
        Ok(())
    })?;
    let limits = &spec.limits;
    for number in [
        limits.cpu_seconds,
        limits.memory_bytes,
        limits.processes,
        limits.file_bytes,
        limits.open_files,
        limits.tmp_bytes,
        u64::from(limits.require_cgroup),
        u64::try_from(spec.linger.as_millis()).unwrap_or(u64::MAX),
    ] {
        writer.number(number);
    }
    finished(writer)
}

/// The bytes of the order for one more command in a jail.
pub(super) fn encode_command(spec: &CommandSpec) -> Result<Vec<u8>, JailError> {
    let mut writer = Writer::default();
    write_command(&mut writer, spec)?;
    finished(writer)
}

/// The order in the file that came along; `None` if there is none in it.
pub(super) fn read_order(file: OwnedFd) -> Option<Order> {
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).ok()?;
    decode_order(&bytes)
}

/// The order in `bytes`; `None` if they are no order.
pub(super) fn decode_order(bytes: &[u8]) -> Option<Order> {
    let mut reader = Reader::new(bytes);
    let command = read_command(&mut reader)?;
    let lifetime = match reader.number()? {
        0 => Lifetime::Command,
        _ => Lifetime::Kept,
    };
    let network = match reader.number()? {
        0 => Network::None,
        1 => Network::Loopback,
        2 => Network::Proxy,
        3 => Network::Host,
        _ => return None,
    };
    let workspace = match reader.number()? {
        0 => None,
        access => Some(WorkspaceOrder {
            access: if access == 2 {
                Access::ReadWrite
            } else {
                Access::ReadOnly
            },
            source: reader.path()?,
            target: reader.path()?,
            overlay: reader.list(Reader::path)?.pop(),
        }),
    };
    let read_only = reader.list(Reader::path)?;
    let inputs = reader.list(|reader| {
        Some(InputOrder {
            length: reader.number()?,
            target: reader.path()?,
        })
    })?;
    let protected = reader.list(Reader::path)?;
    let masked = reader.list(|reader| {
        Some(Masked {
            is_directory: reader.number()? != 0,
            path: reader.path()?,
        })
    })?;
    let observed = reader.number()? != 0;
    let surroundings = Surroundings::read(&mut reader)?;
    let layers = LayerSet(reader.small()?);
    let published = reader.list(|reader| u16::try_from(reader.number()?).ok())?;
    let limits = Limits {
        cpu_seconds: reader.number()?,
        memory_bytes: reader.number()?,
        processes: reader.number()?,
        file_bytes: reader.number()?,
        open_files: reader.number()?,
        tmp_bytes: reader.number()?,
        require_cgroup: reader.number()? != 0,
    };
    let linger = Duration::from_millis(reader.number()?);
    reader.is_at_end().then_some(Order {
        command,
        lifetime,
        workspace,
        read_only,
        inputs,
        protected,
        masked,
        observed,
        surroundings,
        layers,
        published,
        network,
        limits,
        linger,
    })
}

/// The order for one more command in `bytes`; `None` if they are no order.
pub(super) fn decode_command(bytes: &[u8]) -> Option<CommandOrder> {
    let mut reader = Reader::new(bytes);
    let command = read_command(&mut reader)?;
    reader.is_at_end().then_some(command)
}

/// The number of a command in its jail; the first has 0.
pub(super) type CommandNumber = u64;

/// What launcher and init report about one jail.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The launcher cloned init and put it into a control group, if it has one; its pidfd comes along.
    Started {
        pid: i32,
        cgroup: Option<CgroupVersion>,
    },
    /// A step failed and the command was not started.
    Refused {
        command: CommandNumber,
        layer: Layer,
        errno: i32,
        detail: String,
    },
    /// A command runs; these layers stand around it. Its terminal comes along, if it has one.
    Running {
        command: CommandNumber,
        pid: i32,
        applied: LayerSet,
        landlock_abi: u32,
        kernel_uid: u32,
    },
    /// A command ended; `left` processes of the jail still run.
    CommandEnded {
        command: CommandNumber,
        status: i32,
        usage: Consumed,
        left: u32,
        memory_kills: Option<MemoryKills>,
    },
    /// Answer to [`Request::Connect`]: the socket comes along, or the error number is not 0.
    Socket { id: u64, errno: i32 },
    /// The listener for the server's proxy comes along.
    Listener,
    /// The listener of the filter of system calls comes along.
    Observed,
    /// A guarded path lost what guarded it while a command ran, or came up where there was none.
    Replaced {
        command: CommandNumber,
        was_there: bool,
        path: PathBuf,
    },
    /// System calls of this kind were denied, so often by now.
    Denied { denial: Denial, times: u64 },
    /// The launcher reaped init: nothing of the jail is left. `memory_kills` are all that its control group counted.
    JailEnded {
        status: i32,
        usage: Consumed,
        memory_kills: Option<u64>,
    },
}

/// How many processes of the jail the kernel had killed for want of memory when a command started, and when it had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryKills {
    pub(super) before: u64,
    pub(super) after: u64,
}

/// A system call that was denied, with as much of its arguments as says what was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denial {
    /// The command it came from, if that is known.
    pub(super) command: Option<CommandNumber>,
    /// Its number.
    pub(super) call: i64,
    /// The lower halves of its first three arguments.
    pub(super) arguments: [u32; 3],
}

/// What processes used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Consumed {
    pub(super) cpu_micros: u64,
    pub(super) max_rss_kib: u64,
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The command's own process.
    Leader,
    /// The command's process group.
    Group,
    /// Every process that descends from the command.
    Tree,
    /// Every process of the jail.
    Jail,
}

/// What the server asks of init.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A socket connected to `port` on the jail's loopback interface.
    Connect { id: u64, port: u16, ipv6: bool },
    /// A signal for a command or more.
    Signal {
        command: CommandNumber,
        signal: i32,
        reach: Reach,
    },
    /// One more command; its order comes along, and its streams if it has no terminal.
    Start { command: CommandNumber },
}

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Started { pid, cgroup } => writer.numbers(&[
                1,
                signed(*pid),
                match cgroup {
                    None => 0,
                    Some(CgroupVersion::V1) => 1,
                    Some(CgroupVersion::V2) => 2,
                },
            ]),
            Self::Refused {
                command,
                layer,
                errno,
                detail,
            } => {
                writer.numbers(&[2, *command, *layer as u64, signed(*errno)]);
                let bytes = detail.as_bytes();
                writer.bytes(&bytes[..bytes.len().min(4096)]);
            }
            Self::Running {
                command,
                pid,
                applied,
                landlock_abi,
                kernel_uid,
            } => writer.numbers(&[
                3,
                *command,
                signed(*pid),
                u64::from(applied.0),
                u64::from(*landlock_abi),
                u64::from(*kernel_uid),
            ]),
            Self::CommandEnded {
                command,
                status,
                usage,
                left,
                memory_kills,
            } => {
                writer.numbers(&[
                    4,
                    *command,
                    signed(*status),
                    usage.cpu_micros,
                    usage.max_rss_kib,
                    u64::from(*left),
                ]);
                if let Some(MemoryKills { before, after }) = memory_kills {
                    writer.numbers(&[*before, *after]);
                }
            }
            Self::Socket { id, errno } => writer.numbers(&[5, *id, signed(*errno)]),
            Self::JailEnded {
                status,
                usage,
                memory_kills,
            } => {
                writer.numbers(&[6, signed(*status), usage.cpu_micros, usage.max_rss_kib]);
                if let Some(kills) = memory_kills {
                    writer.number(*kills);
                }
            }
            Self::Replaced {
                command,
                was_there,
                path,
            } => {
                writer.numbers(&[10, *command, u64::from(*was_there)]);
                let bytes = path.as_os_str().as_bytes();
                writer.bytes(&bytes[..bytes.len().min(4096)]);
            }
            Self::Listener => writer.number(7),
            Self::Observed => writer.number(9),
            Self::Denied { denial, times } => writer.numbers(&[
                8,
                denial.command.map_or(0, |command| command + 1),
                denial.call.cast_unsigned(),
                u64::from(denial.arguments[0]),
                u64::from(denial.arguments[1]),
                u64::from(denial.arguments[2]),
                *times,
            ]),
        }
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(match reader.number()? {
            1 => Self::Started {
                pid: reader.signed()?,
                cgroup: match reader.number()? {
                    0 => None,
                    1 => Some(CgroupVersion::V1),
                    2 => Some(CgroupVersion::V2),
                    _ => return None,
                },
            },
            2 => Self::Refused {
                command: reader.number()?,
                layer: Layer::from_code(u8::try_from(reader.number()?).ok()?),
                errno: reader.signed()?,
                detail: String::from_utf8_lossy(reader.bytes()?).into_owned(),
            },
            3 => Self::Running {
                command: reader.number()?,
                pid: reader.signed()?,
                applied: LayerSet(reader.small()?),
                landlock_abi: reader.small()?,
                kernel_uid: reader.small()?,
            },
            4 => Self::CommandEnded {
                command: reader.number()?,
                status: reader.signed()?,
                usage: read_consumed(&mut reader)?,
                left: reader.small()?,
                memory_kills: match reader.number() {
                    Some(before) => Some(MemoryKills {
                        before,
                        after: reader.number()?,
                    }),
                    None => None,
                },
            },
            5 => Self::Socket {
                id: reader.number()?,
                errno: reader.signed()?,
            },
            6 => Self::JailEnded {
                status: reader.signed()?,
                usage: read_consumed(&mut reader)?,
                memory_kills: reader.number(),
            },
            10 => Self::Replaced {
                command: reader.number()?,
                was_there: reader.number()? != 0,
                path: reader.path()?,
            },
            7 => Self::Listener,
            9 => Self::Observed,
            8 => Self::Denied {
                denial: Denial {
                    command: reader.number()?.checked_sub(1),
                    call: reader.number()?.cast_signed(),
                    arguments: [reader.small()?, reader.small()?, reader.small()?],
                },
                times: reader.number()?,
            },
            _ => return None,
        })
    }
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Connect { id, port, ipv6 } => {
                writer.numbers(&[1, *id, u64::from(*port), u64::from(*ipv6)]);
            }
            Self::Signal {
                command,
                signal,
                reach,
            } => {
                let reach = match reach {
                    Reach::Leader => 0,
                    Reach::Group => 1,
                    Reach::Tree => 2,
                    Reach::Jail => 3,
                };
                writer.numbers(&[2, *command, signed(*signal), reach]);
            }
            Self::Start { command } => writer.numbers(&[3, *command]),
        }
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(match reader.number()? {
            1 => Self::Connect {
                id: reader.number()?,
                port: u16::try_from(reader.number()?).ok()?,
                ipv6: reader.number()? != 0,
            },
            2 => Self::Signal {
                command: reader.number()?,
                signal: reader.signed()?,
                reach: match reader.number()? {
                    0 => Reach::Leader,
                    1 => Reach::Group,
                    2 => Reach::Tree,
                    3 => Reach::Jail,
                    _ => return None,
                },
            },
            3 => Self::Start {
                command: reader.number()?,
            },
            _ => return None,
        })
    }
}

fn finished(writer: Writer) -> Result<Vec<u8>, JailError> {
    let bytes = writer.0;
    if bytes.len() > MAX_ORDER {
        return Err(JailError::Request(format!(
            "arguments and environment are {} bytes; at most {MAX_ORDER} are possible",
            bytes.len()
        )));
    }
    Ok(bytes)
}

fn write_command(writer: &mut Writer, spec: &CommandSpec) -> Result<(), JailError> {
    if spec.argv.is_empty() {
        return Err(JailError::Request("it is empty".to_owned()));
    }
    if !spec.cwd.is_absolute() {
        return Err(JailError::Request(format!(
            "working directory `{}` is not absolute",
            spec.cwd.display()
        )));
    }
    writer.list(&spec.argv, |writer, argument| {
        writer.text(argument, "an argument")
    })?;
    writer.list(&spec.env, |writer, (name, value)| {
        if name.is_empty() || name.as_bytes().contains(&b'=') {
            return Err(JailError::Request(format!(
                "`{}` is not a name of an environment variable",
                name.display()
            )));
        }
        let mut pair = name.clone();
        pair.push("=");
        pair.push(value);
        writer.text(&pair, "the environment")
    })?;
    writer.path(&spec.cwd)?;
    match spec.stdin {
        Stdin::Terminal(TerminalSize { rows, columns }) => {
            writer.numbers(&[1, rows.get().into(), columns.get().into()]);
        }
        Stdin::Null | Stdin::Bytes(_) | Stdin::Pipe => writer.number(0),
    }
    Ok(())
}

fn read_command(reader: &mut Reader<'_>) -> Option<CommandOrder> {
    let argv = reader.list(Reader::text)?;
    let env = reader.list(Reader::text)?;
    let cwd = reader.path()?;
    let terminal = match reader.number()? {
        0 => None,
        _ => Some(TerminalSize {
            rows: u16::try_from(reader.number()?).ok()?.try_into().ok()?,
            columns: u16::try_from(reader.number()?).ok()?.try_into().ok()?,
        }),
    };
    (!argv.is_empty()).then_some(CommandOrder {
        argv,
        env,
        cwd,
        terminal,
    })
}

fn read_consumed(reader: &mut Reader<'_>) -> Option<Consumed> {
    Some(Consumed {
        cpu_micros: reader.number()?,
        max_rss_kib: reader.number()?,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_given() -> anyhow::Result<()> {
        let mut spec = JailSpec::new(["/bin/echo", "a b", "\u{e9}"]);
        spec.published = vec![80, 65535];
        spec.command.env.push(("EMPTY".into(), OsString::new()));
        let order = decode_order(&encode_order(&spec, &Surroundings::Own)?)
            .ok_or_else(|| anyhow::anyhow!("no order"))?;
        assert_eq!(order.command.argv[1].as_bytes(), b"a b");
        assert_eq!(
            order.command.env.last().map(CString::as_bytes),
            Some(&b"EMPTY="[..])
        );
        assert_eq!(order.published, [80, 65535]);
        assert_eq!(order.limits, Limits::default());
        assert_eq!(order.read_only, spec.read_only);
        Ok(())
    }

    #[test]
    fn a_nul_byte_or_an_empty_command_is_refused() {
        assert!(encode_order(&JailSpec::new(["a\0b"]), &Surroundings::Own).is_err());
        assert!(encode_order(&JailSpec::new(Vec::<OsString>::new()), &Surroundings::Own).is_err());
        let mut spec = JailSpec::new(["true"]);
        spec.command.env.push(("A=B".into(), "c".into()));
        assert!(encode_order(&spec, &Surroundings::Own).is_err());
    }

    #[test]
    fn a_cut_order_is_no_order() -> anyhow::Result<()> {
        let surroundings = Surroundings::Container {
            outside: vec![4_026_531_841; 7],
            watched: vec![Watched::absent("/w/.mcp.json".into())],
        };
        let bytes = encode_order(&JailSpec::new(["true"]), &surroundings)?;
        for length in 0..bytes.len() {
            assert_eq!(decode_order(&bytes[..length]), None);
        }
        Ok(())
    }

    #[test]
    fn reports_and_requests_arrive_as_they_were_sent() {
        let refused = Report::Refused {
            command: 0,
            layer: Layer::Landlock,
            errno: -1,
            detail: "create_ruleset".to_owned(),
        };
        assert_eq!(Report::decode(&refused.encode()), Some(refused));
        for memory_kills in [
            None,
            Some(MemoryKills {
                before: 1,
                after: 2,
            }),
        ] {
            let ended = Report::CommandEnded {
                command: 3,
                status: 9,
                usage: Consumed::default(),
                left: 4,
                memory_kills,
            };
            assert_eq!(Report::decode(&ended.encode()), Some(ended));
        }
        let request = Request::Connect {
            id: 7,
            port: 80,
            ipv6: true,
        };
        assert_eq!(Request::decode(&request.encode()), Some(request));
    }
}
