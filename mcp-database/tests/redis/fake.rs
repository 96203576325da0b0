//! Servers that say what they are told to.

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server that lets everybody in and answers every other command by what `answer` says to it. It takes one command at a time.
pub(crate) async fn fake(
    answer: impl Fn(&str) -> Vec<u8> + Clone + Send + 'static,
) -> Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    for command in commands(&said) {
                        let bytes = if command.starts_with("AUTH") {
                            b"+OK\r\n".to_vec()
                        } else {
                            answer(&command)
                        };
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok((port, task))
}

/// The commands in what a client said, each with its words in one line.
fn commands(said: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for line in said.split("\r\n") {
        if line.starts_with('*') {
            commands.push(String::new());
        } else if !line.starts_with('$')
            && !line.is_empty()
            && let Some(command) = commands.last_mut()
        {
            if !command.is_empty() {
                command.push(' ');
            }
            command.push_str(line);
        }
    }
    commands
}
