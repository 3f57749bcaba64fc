//! A Redis of a test's own, which keeps nothing on disk.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

/// Ended when dropped.
pub struct Redis {
    child: Child,
    /// The same for whoever starts it again.
    pub port: u16,
}

impl Redis {
    /// There when it accepts connections.
    pub async fn start(port: u16) -> Self {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
        command.arg(port.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("redis-server starts; Debian's package has its name");
        let mut redis = Self { child, port };
        for _ in 0..1_000 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
                return redis;
            }
            assert!(matches!(redis.child.try_wait(), Ok(None)), "Redis ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("Redis does not answer on port {port}");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
