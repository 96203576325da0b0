//! What launcher and init report of a jail, and what the server asks of init: small datagrams.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::Layer;
use super::codec::{Reader, Writer, signed};
use super::layer::{CgroupVersion, LayerSet};

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
    /// A guarded path lost what guarded it while a command ran.
    Replaced {
        command: CommandNumber,
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
    /// One more command; its streams come along if it has no terminal. An empty order is in a file that comes first.
    Start {
        command: CommandNumber,
        order: Vec<u8>,
    },
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
            Self::Replaced { command, path } => {
                writer.numbers(&[10, *command]);
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
            Self::Start { command, order } => {
                writer.numbers(&[3, *command]);
                writer.bytes(order);
            }
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
                order: reader.bytes()?.to_vec(),
            },
            _ => return None,
        })
    }
}
fn read_consumed(reader: &mut Reader<'_>) -> Option<Consumed> {
    Some(Consumed {
        cpu_micros: reader.number()?,
        max_rss_kib: reader.number()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
