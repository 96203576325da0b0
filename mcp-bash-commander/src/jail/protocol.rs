//! What server, launcher and init say to each other: one order for a jail, then small reports.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layer::LayerSet;
use super::{Access, JailError, JailSpec, Layer, Limits};

/// Most bytes of an order: arguments, environment and paths together. The kernel's own limit of arguments is 2 MiB by default.
const MAX_ORDER: usize = 8 << 20;

/// A jail as the launcher and init are told to make it; its descriptors travel beside it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) cwd: PathBuf,
    pub(super) workspace: Option<WorkspaceOrder>,
    pub(super) read_only: Vec<PathBuf>,
    pub(super) inputs: Vec<InputOrder>,
    pub(super) published: Vec<u16>,
    pub(super) limits: Limits,
    pub(super) linger: Duration,
}

/// The workspace; the pinned directory is a descriptor beside the order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WorkspaceOrder {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) access: Access,
}

/// A pinned input; its bytes are a sealed descriptor beside the order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InputOrder {
    pub(super) target: PathBuf,
    pub(super) length: u64,
}

/// The bytes of the order for `spec`.
pub(super) fn encode_order(spec: &JailSpec) -> Result<Vec<u8>, JailError> {
    if spec.argv.is_empty() {
        return Err(JailError::Request("it is empty".to_owned()));
    }
    if !spec.cwd.is_absolute() {
        return Err(JailError::Request(format!(
            "working directory `{}` is not absolute",
            spec.cwd.display()
        )));
    }
    let mut writer = Writer::default();
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
    match &spec.workspace {
        None => writer.number(0),
        Some(workspace) => {
            writer.number(match workspace.access {
                Access::ReadOnly => 1,
                Access::ReadWrite => 2,
            });
            writer.path(&workspace.source)?;
            writer.path(&workspace.target)?;
        }
    }
    writer.list(&spec.read_only, |writer, path| writer.path(path))?;
    writer.list(&spec.inputs, |writer, input| {
        writer.number(input.length);
        writer.path(&input.target)
    })?;
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
        u64::try_from(spec.linger.as_millis()).unwrap_or(u64::MAX),
    ] {
        writer.number(number);
    }
    if writer.0.len() > MAX_ORDER {
        return Err(JailError::Request(format!(
            "arguments and environment are {} bytes; at most {MAX_ORDER} are possible",
            writer.0.len()
        )));
    }
    Ok(writer.0)
}

/// The order in `bytes`; `None` if they are no order.
pub(super) fn decode_order(bytes: &[u8]) -> Option<Order> {
    let mut reader = Reader(bytes);
    let argv = reader.list(Reader::text)?;
    let env = reader.list(Reader::text)?;
    let cwd = reader.path()?;
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
        }),
    };
    let read_only = reader.list(Reader::path)?;
    let inputs = reader.list(|reader| {
        Some(InputOrder {
            length: reader.number()?,
            target: reader.path()?,
        })
    })?;
    let published = reader.list(|reader| u16::try_from(reader.number()?).ok())?;
    let limits = Limits {
        cpu_seconds: reader.number()?,
        memory_bytes: reader.number()?,
        processes: reader.number()?,
        file_bytes: reader.number()?,
        open_files: reader.number()?,
        tmp_bytes: reader.number()?,
    };
    let linger = Duration::from_millis(reader.number()?);
    reader.0.is_empty().then_some(Order {
        argv,
        env,
        cwd,
        workspace,
        read_only,
        inputs,
        published,
        limits,
        linger,
    })
}

/// What launcher and init report about one jail.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The launcher cloned init; its pidfd comes along.
    Started { pid: i32 },
    /// A step failed and the command was not started.
    Refused {
        layer: Layer,
        errno: i32,
        detail: String,
    },
    /// The command runs; these layers stand around it.
    Running {
        applied: LayerSet,
        landlock_abi: u32,
        kernel_uid: u32,
    },
    /// The command ended; `left` processes of the jail still run.
    CommandEnded {
        status: i32,
        usage: Consumed,
        left: u32,
    },
    /// Answer to [`Request::Connect`]: the socket comes along, or the error number is not 0.
    Socket { id: u64, errno: i32 },
    /// The launcher reaped init: nothing of the jail is left.
    JailEnded {
        status: i32,
        usage: Consumed,
        in_cgroup: bool,
        out_of_memory: bool,
    },
}

/// What processes used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Consumed {
    pub(super) cpu_micros: u64,
    pub(super) max_rss_kib: u64,
}

/// What the server asks of init.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A socket connected to `port` on the jail's loopback interface.
    Connect { id: u64, port: u16, ipv6: bool },
    /// A signal for the command, or for every process of the jail.
    Signal { signal: i32, everyone: bool },
}

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Started { pid } => writer.numbers(&[1, signed(*pid)]),
            Self::Refused {
                layer,
                errno,
                detail,
            } => {
                writer.numbers(&[2, *layer as u64, signed(*errno)]);
                let bytes = detail.as_bytes();
                writer.bytes(&bytes[..bytes.len().min(4096)]);
            }
            Self::Running {
                applied,
                landlock_abi,
                kernel_uid,
            } => writer.numbers(&[
                3,
                u64::from(applied.0),
                u64::from(*landlock_abi),
                u64::from(*kernel_uid),
            ]),
            Self::CommandEnded {
                status,
                usage,
                left,
            } => writer.numbers(&[
                4,
                signed(*status),
                usage.cpu_micros,
                usage.max_rss_kib,
                u64::from(*left),
            ]),
            Self::Socket { id, errno } => writer.numbers(&[5, *id, signed(*errno)]),
            Self::JailEnded {
                status,
                usage,
                in_cgroup,
                out_of_memory,
            } => writer.numbers(&[
                6,
                signed(*status),
                usage.cpu_micros,
                usage.max_rss_kib,
                u64::from(*in_cgroup),
                u64::from(*out_of_memory),
            ]),
        }
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(match reader.number()? {
            1 => Self::Started {
                pid: reader.signed()?,
            },
            2 => Self::Refused {
                layer: Layer::from_code(u8::try_from(reader.number()?).ok()?),
                errno: reader.signed()?,
                detail: String::from_utf8_lossy(reader.bytes()?).into_owned(),
            },
            3 => Self::Running {
                applied: LayerSet(reader.small()?),
                landlock_abi: reader.small()?,
                kernel_uid: reader.small()?,
            },
            4 => Self::CommandEnded {
                status: reader.signed()?,
                usage: reader.consumed()?,
                left: reader.small()?,
            },
            5 => Self::Socket {
                id: reader.number()?,
                errno: reader.signed()?,
            },
            6 => Self::JailEnded {
                status: reader.signed()?,
                usage: reader.consumed()?,
                in_cgroup: reader.number()? != 0,
                out_of_memory: reader.number()? != 0,
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
            Self::Signal { signal, everyone } => {
                writer.numbers(&[2, signed(*signal), u64::from(*everyone)]);
            }
        }
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(match reader.number()? {
            1 => Self::Connect {
                id: reader.number()?,
                port: u16::try_from(reader.number()?).ok()?,
                ipv6: reader.number()? != 0,
            },
            2 => Self::Signal {
                signal: reader.signed()?,
                everyone: reader.number()? != 0,
            },
            _ => return None,
        })
    }
}

/// A signed number in the place of an unsigned one; [`Reader::signed`] undoes it.
fn signed(number: i32) -> u64 {
    u64::from(number.cast_unsigned())
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn numbers(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.number(*number);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &OsStr, what: &str) -> Result<(), JailError> {
        if text.as_bytes().contains(&0) {
            return Err(JailError::Request(format!("{what} contains a NUL byte")));
        }
        self.bytes(text.as_bytes());
        Ok(())
    }

    fn path(&mut self, path: &Path) -> Result<(), JailError> {
        self.text(path.as_os_str(), "a path")
    }

    fn list<T>(
        &mut self,
        items: &[T],
        mut each: impl FnMut(&mut Self, &T) -> Result<(), JailError>,
    ) -> Result<(), JailError> {
        self.number(items.len() as u64);
        items.iter().try_for_each(|item| each(self, item))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn signed(&mut self) -> Option<i32> {
        Some(self.small()?.cast_signed())
    }

    fn consumed(&mut self) -> Option<Consumed> {
        Some(Consumed {
            cpu_micros: self.number()?,
            max_rss_kib: self.number()?,
        })
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<CString> {
        CString::new(self.bytes()?).ok()
    }

    fn path(&mut self) -> Option<PathBuf> {
        Some(OsString::from_vec(self.bytes()?.to_vec()).into())
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = usize::try_from(self.number()?).ok()?;
        if length > self.0.len() {
            return None;
        }
        (0..length).map(|_| each(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_given() -> anyhow::Result<()> {
        let mut spec = JailSpec::new(["/bin/echo", "a b", "\u{e9}"]);
        spec.published = vec![80, 65535];
        spec.env.push(("EMPTY".into(), OsString::new()));
        let order =
            decode_order(&encode_order(&spec)?).ok_or_else(|| anyhow::anyhow!("no order"))?;
        assert_eq!(order.argv[1].as_bytes(), b"a b");
        assert_eq!(
            order.env.last().map(CString::as_bytes),
            Some(&b"EMPTY="[..])
        );
        assert_eq!(order.published, [80, 65535]);
        assert_eq!(order.limits, Limits::default());
        assert_eq!(order.read_only, spec.read_only);
        Ok(())
    }

    #[test]
    fn a_nul_byte_or_an_empty_command_is_refused() {
        assert!(encode_order(&JailSpec::new(["a\0b"])).is_err());
        assert!(encode_order(&JailSpec::new(Vec::<OsString>::new())).is_err());
        let mut spec = JailSpec::new(["true"]);
        spec.env.push(("A=B".into(), "c".into()));
        assert!(encode_order(&spec).is_err());
    }

    #[test]
    fn a_cut_order_is_no_order() -> anyhow::Result<()> {
        let bytes = encode_order(&JailSpec::new(["true"]))?;
        for length in 0..bytes.len() {
            assert_eq!(decode_order(&bytes[..length]), None);
        }
        Ok(())
    }

    #[test]
    fn reports_and_requests_arrive_as_they_were_sent() {
        let refused = Report::Refused {
            layer: Layer::Landlock,
            errno: -1,
            detail: "create_ruleset".to_owned(),
        };
        assert_eq!(Report::decode(&refused.encode()), Some(refused));
        let request = Request::Connect {
            id: 7,
            port: 80,
            ipv6: true,
        };
        assert_eq!(Request::decode(&request.encode()), Some(request));
    }
}
