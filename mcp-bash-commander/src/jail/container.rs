//! Jails in containers of a Docker engine: it makes namespaces, root and the limits of the whole. Our own init, put into the container,
//! does the rest, and speaks with the server as the init of every other jail does.

mod files;
mod left;
mod program;
mod request;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use rustix::io::Errno;
use rustix::net::{SocketFlags, sockopt};
use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;
use tokio::sync::OnceCell;

use files::Files;
use program::Program;

use super::order::Surroundings;
use super::owner::Owner;
use super::{Identity, JailError, JailSpec, Layer, sys, usage};

/// How long the engine may take for one answer.
const ANSWER_SECONDS: u64 = 30;
/// How long a started container may take until its init has connected.
const START: Duration = Duration::from_secs(20);
/// Where an engine listens that nobody says otherwise of.
const ENGINE: &str = "unix:///var/run/docker.sock";

/// Which containers jails are made in.
#[derive(Debug, Clone)]
pub struct ContainerSettings {
    /// The image by its digest, as in `debian@sha256:…` or `sha256:…`: a name alone could mean another one tomorrow.
    pub image: String,
    /// The engine's socket, as in `unix:///var/run/docker.sock`; that is where it is looked for if `DOCKER_HOST` says nothing else.
    pub engine: Option<String>,
    /// The runtime, where it is not the engine's default, as in `runsc`.
    pub runtime: Option<String>,
    /// A directory of the server's own for what containers are given; made when it is needed.
    pub directory: PathBuf,
}

/// Makes containers.
#[derive(Debug)]
pub(super) struct Containers {
    settings: ContainerSettings,
    engine: OnceCell<Docker>,
    next: AtomicU64,
}

/// A container whose init has connected.
pub(super) struct Contained {
    pub(super) socket: OwnedFd,
    pub(super) init: (Identity, OwnedFd),
    pub(super) surroundings: Surroundings,
}

impl Containers {
    pub(super) fn new(settings: ContainerSettings) -> Self {
        Self {
            settings,
            engine: OnceCell::new(),
            next: AtomicU64::new(1),
        }
    }

    /// Starts a container for `spec`, with `program` as its init. It lives no longer than its connection.
    pub(super) async fn start(
        &self,
        program: &Path,
        spec: &JailSpec,
    ) -> Result<Contained, JailError> {
        if spec
            .workspace
            .as_ref()
            .is_some_and(super::Workspace::is_overlaid)
        {
            let what = "keep changes aside in a container".to_owned();
            return Err(JailError::lacks(Layer::Overlay, Errno::OPNOTSUPP, what));
        }
        let user = request::user(spec)?;
        let owner = Owner::this().map_err(JailError::io("look at this process"))?;
        let engine = self.engine(&owner).await?;
        self.check_image(engine).await?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let files = Files::make(&self.settings.directory, &owner, number, user)?;
        let listener = files
            .listener()
            .map_err(JailError::io("make a container's socket"))?;
        let program = Program::of(program)?;
        let asked = request::of(&self.settings, spec, &files, &program, &owner, user)?;
        let created = engine
            .create_container(None::<CreateContainerOptions>, asked.body)
            .await
            .map_err(|error| self.failure("make a container", &error))?;
        let mut container = Container {
            engine: engine.clone(),
            id: Some(created.id),
        };
        let id = container.id.clone().unwrap_or_default();
        engine
            .start_container(&id, None::<StartContainerOptions>)
            .await
            .map_err(|error| self.failure("start the container", &error))?;
        let (socket, init) = tokio::time::timeout(START, accept(listener, user.0))
            .await
            .map_err(|_| failed("the container's init did not connect"))??;
        // From here on it ends with its connection, and the engine removes what has ended.
        container.id = None;
        Ok(Contained {
            socket,
            init,
            surroundings: asked.surroundings,
        })
    }

    /// The engine, asked once who it is; containers of servers that are gone are removed then.
    async fn engine(&self, this: &Owner) -> Result<&Docker, JailError> {
        self.engine
            .get_or_try_init(|| async {
                let from_environment = || {
                    let host = std::env::var("DOCKER_HOST").ok();
                    host.filter(|host| host.starts_with("unix://"))
                };
                let address = self.settings.engine.clone();
                let address = address.or_else(from_environment);
                let address = address.as_deref().unwrap_or(ENGINE);
                let unreachable = |error: EngineError| JailError::Container {
                    reason: format!("no container engine answers at {address}: {error}"),
                    hint: "start it, let this user reach its socket, or name another in container.engine of the policy".to_owned(),
                };
                let engine =
                    Docker::connect_with_unix(address, ANSWER_SECONDS, bollard::API_DEFAULT_VERSION)
                        .map_err(unreachable)?
                        .negotiate_version()
                        .await
                        .map_err(unreachable)?;
                left::remove_left(&engine, this).await;
                files::remove_left(&self.settings.directory, this);
                Ok(engine)
            })
            .await
    }

    /// The image must be there, be the one that was named, and bring no volumes: they would be writable and without a bound.
    async fn check_image(&self, engine: &Docker) -> Result<(), JailError> {
        let name = &self.settings.image;
        let image = engine
            .inspect_image(name)
            .await
            .map_err(|error| self.failure("look at the image", &error))?;
        let id = image.id.unwrap_or_default();
        let digest = name.split_once("sha256:").map(|(_, digest)| digest);
        if digest.is_none_or(|digest| digest.len() != 64) {
            return Err(JailError::Container {
                reason: format!("the image `{name}` is not named by its digest"),
                hint: format!("now it is {id}: write that, or NAME@sha256:…, into container.image"),
            });
        }
        let volumes = image.config.and_then(|config| config.volumes);
        if volumes.is_some_and(|volumes| !volumes.is_empty()) {
            return Err(JailError::Container {
                reason: format!("the image `{name}` declares volumes, which no limit would bound"),
                hint: "take an image without VOLUME".to_owned(),
            });
        }
        Ok(())
    }

    fn failure(&self, action: &str, error: &EngineError) -> JailError {
        let image = &self.settings.image;
        match error {
            EngineError::DockerResponseServerError {
                status_code: 404,
                message,
            } => JailError::Container {
                reason: format!("the engine has no image `{image}`: {message}"),
                hint: format!("run `docker pull {image}`; jails pull nothing themselves"),
            },
            error => failed(format!("the engine could not {action}: {error}")),
        }
    }
}

fn failed(reason: impl Into<String>) -> JailError {
    JailError::Container {
        reason: reason.into(),
        hint: "run `mcp-bash-commander doctor`; the engine's own log may say more".to_owned(),
    }
}

/// The connection of the container's init, and which process that is.
async fn accept(listener: OwnedFd, uid: u32) -> Result<(OwnedFd, (Identity, OwnedFd)), JailError> {
    let listener =
        sys::watch(listener, Interest::READABLE).map_err(JailError::io("wait for a container"))?;
    loop {
        let mut ready = listener
            .readable()
            .await
            .map_err(JailError::io("wait for a container"))?;
        let accepted = ready.try_io(|listener| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(rustix::net::accept_with(listener.get_ref(), flags)?)
        });
        let Ok(accepted) = accepted else { continue };
        let socket = accepted.map_err(JailError::io("hear from a container"))?;
        let peer = sockopt::socket_peercred(&socket)
            .map_err(JailError::errno("see who connected from a container"))?;
        if peer.uid.as_raw() != uid {
            return Err(failed(
                "somebody else connected in the place of the container's init",
            ));
        }
        let pid: Pid = peer.pid;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
            .map_err(JailError::errno("watch the container's init"))?;
        let identity = usage::identify(pid.as_raw_nonzero().get());
        return Ok((socket, (identity, pidfd)));
    }
}

/// A container that nobody has a connection with yet: it is removed if that does not come about.
struct Container {
    engine: Docker,
    id: Option<String>,
}

impl Drop for Container {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let engine = self.engine.clone();
        runtime.spawn(async move {
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            // One that was started and has ended is gone already.
            if let Err(error) = engine.remove_container(&id, Some(options)).await {
                tracing::debug!(%error, "a container was not removed");
            }
        });
    }
}
