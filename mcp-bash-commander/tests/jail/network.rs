//! What a jail can reach: nothing, itself, the server's proxy, or what the host reaches.

use std::io::Read as _;
use std::net::TcpListener;

use mcp_bash_commander::jail::{Network, Reach};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Scene, finish, missing};

/// A server and a client of it, both in the jail.
const BOTH: &str = r"
import socket, threading
try:
    listener = socket.create_server(('127.0.0.1', 0))
    threading.Thread(target=lambda: listener.accept()[0].sendall(b'hello'), daemon=True).start()
    print(socket.create_connection(listener.getsockname()).recv(9).decode())
except OSError as error:
    print(error.errno)
";

async fn told(scene: &Scene, network: Network, program: &str) -> anyhow::Result<String> {
    let mut spec = scene.spec(["python3", "-c", program])?;
    spec.network = network;
    let output = finish(scene.launcher.run(spec).await?).await?;
    Ok(output.stdout.trim().to_owned() + &output.stderr)
}

fn connect(port: u16) -> String {
    format!(
        "import socket\ntry: print(socket.create_connection(('127.0.0.1', {port}), 2).send(b'x'))\n\
         except OSError as error: print('errno', error.errno)"
    )
}

#[tokio::test]
async fn a_jail_reaches_itself_only_where_that_is_allowed() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    assert_eq!(
        told(&scene, Network::None, BOTH).await?,
        libc::EACCES.to_string()
    );
    for network in [Network::Loopback, Network::Proxy, Network::Host] {
        assert_eq!(told(&scene, network, BOTH).await?, "hello", "{network:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_host_is_reached_only_over_its_own_network_and_the_result_says_so() -> anyhow::Result<()>
{
    let scene = Scene::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    for network in [Network::None, Network::Loopback, Network::Proxy] {
        let refused = told(&scene, network, &connect(port)).await?;
        assert!(refused.starts_with("errno"), "{network:?}: {refused}");
        assert!(listener.accept().is_err(), "{network:?}");
    }
    assert_eq!(told(&scene, Network::Host, &connect(port)).await?, "1");
    assert!(listener.accept().is_ok_and(|(mut stream, _)| {
        let _ = stream.set_nonblocking(false);
        stream.read(&mut [0; 1]).is_ok_and(|read| read == 1)
    }));
    let mut spec = scene.spec(["true"])?;
    spec.network = Network::Host;
    let jail = scene.launcher.run(spec).await?.jail;
    assert_eq!(missing(jail.isolation()), ["net_ns"]);
    Ok(())
}

#[tokio::test]
async fn no_question_about_a_name_leaves_the_jail() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let resolver = std::net::UdpSocket::bind("127.0.0.1:0")?;
    resolver.set_nonblocking(true)?;
    let address = resolver.local_addr()?;
    // A question for text, as tunnels ask it, and then the library's own way, with the resolver that the host would have.
    let program = format!(
        "import socket\n\
         name = b'\\x06secret\\x06tunnel\\x04test\\x00'\n\
         query = b'\\x12\\x34\\x01\\x00\\x00\\x01' + bytes(6) + name + b'\\x00\\x10\\x00\\x01'\n\
         try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(query, ('127.0.0.1', {}))\n\
         except OSError as error: print('errno', error.errno)\n\
         else: print('sent')\n\
         print(open('/etc/resolv.conf').read().count('nameserver'))\n\
         try: print(socket.getaddrinfo('secret.tunnel.test', 80))\n\
         except socket.gaierror: print('no such name')",
        address.port()
    );
    let heard = || resolver.recv(&mut [0; 512]).ok();
    for network in [Network::None, Network::Loopback, Network::Proxy] {
        let tried = told(&scene, network, &program).await?;
        assert!(tried.ends_with("0\nno such name"), "{network:?}: {tried}");
        assert_eq!(heard(), None, "{network:?}: {tried}");
    }
    let tried = told(&scene, Network::Host, &program).await?;
    assert!(tried.starts_with("sent"), "{tried}");
    assert_eq!(heard(), Some(36), "the control");
    Ok(())
}

#[tokio::test]
async fn the_proxys_listener_stands_in_the_jail_and_is_accepted_on_outside() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.spec([
        "python3",
        "-c",
        "import socket\ns=socket.create_connection(('127.0.0.1',3128))\ns.sendall(b'ask')\nprint(s.recv(9).decode())",
    ])?;
    spec.network = Network::Proxy;
    let process = scene.launcher.run(spec).await?;
    let listener = process
        .jail
        .take_listener()
        .ok_or_else(|| anyhow::anyhow!("no listener"))?;
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (mut stream, _) = listener.accept().await?;
    let mut asked = [0; 3];
    stream.read_exact(&mut asked).await?;
    assert_eq!(&asked, b"ask");
    stream.write_all(b"answer").await?;
    assert_eq!(finish(process).await?.stdout, "answer\n");
    // Outside there is nothing of it.
    assert!(std::net::TcpStream::connect("127.0.0.1:3128").is_err());
    Ok(())
}

#[tokio::test]
async fn sockets_of_other_kinds_stay_denied_whatever_the_network() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let program = "import socket\nfor family, kind in [(16, 3), (17, 3), (2, 3), (40, 1)]:\n try: socket.socket(family, kind); print('made')\n except OSError as e: print(e.errno)";
    for network in [Network::Loopback, Network::Host] {
        assert_eq!(told(&scene, network, program).await?, "1\n1\n1\n1");
    }
    Ok(())
}

#[tokio::test]
async fn a_jail_in_the_hosts_network_ends_like_any_other() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.spec(["sleep", "1000"])?;
    spec.network = Network::Host;
    let process = scene.launcher.run(spec).await?;
    process.command.signal(libc::SIGTERM, Reach::Jail)?;
    assert_eq!(process.command.wait().await.signal, Some(libc::SIGTERM));
    process.jail.finished().await;
    Ok(())
}
