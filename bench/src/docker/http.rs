//! As much of the Docker Engine API (v1.41, "Exec") as an exec takes, on its unix socket: what a program does that does
//! not start a command for each exec.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::row::{Failed, Trying as _};

/// Of a multiplexed stream's frames: which stream, three zeros, a length.
const FRAME_HEADER_BYTES: usize = 8;

const READ_BYTES: usize = 256 << 10;

/// A container behind a daemon's socket.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
    container: &'static str,
}

struct Answer {
    status: u16,
    connection: BufReader<UnixStream>,
    length: Option<usize>,
}

impl Engine {
    pub fn new(socket: PathBuf, container: &'static str) -> Self {
        Self { socket, container }
    }

    /// Runs a program to its successful end: create, start, read, inspect. How much it wrote on stdout.
    ///
    /// # Errors
    /// Any other end.
    pub async fn exec(&self, argv: &[&str]) -> Result<u64, Failed> {
        let what = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": argv});
        let created = self.ask("POST", &format!("/containers/{}/exec", self.container), Some(&what)).await?;
        let id = created["Id"].as_str().ok_or_else(|| Failed::new("Docker named no exec"))?;
        let start = json!({"Detach": false, "Tty": false});
        let answer = self.send("POST", &format!("/exec/{id}/start"), Some(&start), true).await?;
        if !matches!(answer.status, 101 | 200) {
            return Err(Failed::new(format!("Docker refused to start an exec ({})", answer.status)));
        }
        let bytes = demultiplexed(answer.connection).await.trying("read a Docker exec")?;
        let ended = self.ask("GET", &format!("/exec/{id}/json"), None).await?;
        match ended["ExitCode"].as_i64() {
            Some(0) => Ok(bytes),
            code => Err(Failed::new(format!("the Docker exec ended with {code:?}"))),
        }
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let mut answer = self.send(method, path, body, false).await?;
        let length = answer.length.ok_or_else(|| Failed::new("Docker answered without a length"))?;
        let mut body = vec![0; length];
        answer.connection.read_exact(&mut body).await.trying("read Docker's answer")?;
        if answer.status >= 300 {
            return Err(Failed::new(format!("Docker says {}", String::from_utf8_lossy(&body).trim())));
        }
        serde_json::from_slice(&body).trying("understand Docker")
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        upgrade: bool,
    ) -> Result<Answer, Failed> {
        let mut stream = UnixStream::connect(&self.socket).await.trying("connect to dockerd")?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let connection = if upgrade { "Upgrade\r\nUpgrade: tcp" } else { "close" };
        let request = format!(
            "{method} /v1.41{path} HTTP/1.1\r\nHost: docker\r\nConnection: {connection}\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.trying("ask dockerd")?;
        let mut connection = BufReader::with_capacity(READ_BYTES, stream);
        let mut line = String::new();
        connection.read_line(&mut line).await.trying("read Docker's answer")?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| Failed::new(format!("Docker answered `{}`", line.trim())))?;
        let mut length = None;
        loop {
            line.clear();
            connection.read_line(&mut line).await.trying("read Docker's answer")?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        Ok(Answer { status, connection, length })
    }
}

/// How much of a multiplexed stream was stdout.
async fn demultiplexed(mut connection: BufReader<UnixStream>) -> std::io::Result<u64> {
    let mut bytes = 0;
    loop {
        if connection.fill_buf().await?.is_empty() {
            return Ok(bytes);
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        connection.read_exact(&mut header).await?;
        let [stream, _, _, _, a, b, c, d] = header;
        let mut left = u32::from_be_bytes([a, b, c, d]) as usize;
        if stream == 1 {
            bytes += left as u64;
        }
        while left > 0 {
            let length = connection.fill_buf().await?.len().min(left);
            if length == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            connection.consume(length);
            left -= length;
        }
    }
}
