//! What a jail is told to be: the order for it and for each further command, as the server writes and launcher or init read it.

use std::borrow::Cow;
use std::ffi::CString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::codec::{Reader, Writer};
use super::layer::LayerSet;
use super::pinned::Watched;
use super::streams::memory_file;
use super::{
    Access, CommandSpec, JailError, JailSpec, Layer, Lifetime, Limits, Masked, Mode, Network,
    Stdin, TerminalSize, datagram,
};

/// Most bytes of an order that travel in a datagram; what waits in a socket is bounded.
const SHORT_ORDER: usize = datagram::MAX_BYTES / 2;

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
    pub(super) linked: Vec<PathBuf>,
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
    writer.list(&spec.linked, |writer, path| writer.path(path))?;
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

/// An order on its way: in the datagram itself or, if it is long, in a file beside it.
pub(super) struct Parcel {
    pub(super) datagram: Vec<u8>,
    pub(super) file: Option<OwnedFd>,
}

impl Parcel {
    pub(super) fn of(order: Vec<u8>) -> Result<Self, JailError> {
        let (bytes, file) = in_file_if_long(order)?;
        let mut writer = Writer::default();
        writer.bytes(&bytes);
        Ok(Self {
            datagram: writer.0,
            file,
        })
    }

    /// The order that arrived, perhaps in the first of these descriptors; `None` if there is none in it.
    pub(super) fn open(
        datagram: &[u8],
        descriptors: &mut impl Iterator<Item = OwnedFd>,
    ) -> Option<Order> {
        let bytes = Reader::new(datagram).bytes()?;
        decode_order(&taken_from_file(bytes, descriptors)?)
    }
}

/// The bytes of an order as they are, or none and a file in memory that has them.
pub(super) fn in_file_if_long(order: Vec<u8>) -> Result<(Vec<u8>, Option<OwnedFd>), JailError> {
    if order.len() <= SHORT_ORDER {
        return Ok((order, None));
    }
    let file = memory_file("jail-order", &order)?;
    Ok((Vec::new(), Some(file)))
}

/// What [`in_file_if_long`] was given.
pub(super) fn taken_from_file<'a>(
    bytes: &'a [u8],
    descriptors: &mut impl Iterator<Item = OwnedFd>,
) -> Option<Cow<'a, [u8]>> {
    if !bytes.is_empty() {
        return Some(Cow::Borrowed(bytes));
    }
    let mut bytes = Vec::new();
    File::from(descriptors.next()?)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(Cow::Owned(bytes))
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
    let linked = reader.list(Reader::path)?;
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
        linked,
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
}
