//! A receiver of webhooks: it verifies what arrives as the specification asks of receivers, keeps it, and answers what it
//! is told to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

use mandate_activities::webhook::{Received, SigningKey, verify};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

/// A message that arrived, with a signature that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its `webhook-id`.
    pub id: String,
    /// Its body.
    pub body: Value,
}

impl Delivery {
    /// Its event type.
    #[must_use]
    pub fn event(&self) -> &str {
        self.body["type"].as_str().expect("an event type")
    }

    /// A command of it.
    #[must_use]
    pub fn command(&self, index: usize) -> &str {
        self.body["data"]["commands"][index].as_str().unwrap_or_default()
    }
}

/// A receiver. It ends with its test.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Seen {
    status: AtomicU16,
    deliveries: Mutex<Vec<Delivery>>,
    /// What did not verify.
    refused: Mutex<Vec<String>>,
}

/// An address at which nobody listens yet, and which nobody else gets.
#[derive(Debug)]
pub struct Closed {
    address: SocketAddr,
    socket: TcpSocket,
}

impl Closed {
    /// Where connections are refused.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// Listens from here on.
    #[must_use]
    pub fn listen(self) -> Receiver {
        Receiver::on(self.socket.listen(64).expect("it listens"), self.address)
    }
}

impl Receiver {
    /// What messages are signed with: the secret of the specification's own example.
    pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// A receiver that takes everything.
    #[must_use]
    pub fn new() -> Self {
        Self::closed().listen()
    }

    /// A receiver that is down.
    #[must_use]
    pub fn closed() -> Closed {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("an address");
        Closed { address: socket.local_addr().expect("an address"), socket }
    }

    fn on(listener: TcpListener, address: SocketAddr) -> Self {
        let (deliveries, refused) = (Mutex::default(), Mutex::default());
        let seen = Arc::new(Seen { status: AtomicU16::new(200), deliveries, refused });
        let kept = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A sender that breaks off is no matter of the receiver.
                let _ = serve(stream, &kept).await;
            }
        });
        Self { address, seen, serving }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// Answers with this status from here on.
    pub fn answers(&self, status: u16) {
        self.seen.status.store(status, Ordering::Relaxed);
    }

    /// Everything that arrived, in order. All of it verified.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        let refused = self.seen.refused.lock().expect("no panic").clone();
        assert!(refused.is_empty(), "{refused:#?}");
        self.seen.deliveries.lock().expect("no panic").clone()
    }

    /// What arrived of an event type.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<Delivery> {
        self.deliveries().into_iter().filter(|delivery| delivery.event() == event).collect()
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/hook")
}

async fn serve(mut stream: TcpStream, seen: &Seen) -> std::io::Result<()> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    let (head, body) = loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = whole(&text) {
            break (head.to_owned(), body.to_owned());
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => read.extend_from_slice(&buffer[..count]),
        }
    };
    match verified(&head, &body) {
        Ok(delivery) => seen.deliveries.lock().expect("no panic").push(delivery),
        Err(why) => seen.refused.lock().expect("no panic").push(format!("{why}: {head}\n{body}")),
    }
    let status = seen.status.load(Ordering::Relaxed);
    stream.write_all(format!("HTTP/1.1 {status} X\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    stream.shutdown().await
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let value = head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    });
    value.unwrap_or_default()
}

/// Head and body of a request that has arrived as a whole.
fn whole(request: &str) -> Option<(&str, &str)> {
    let (head, body) = request.split_once("\r\n\r\n")?;
    let length = header(head, "content-length").parse().unwrap_or(usize::MAX);
    (body.len() >= length).then_some((head, body))
}

fn verified(head: &str, body: &str) -> Result<Delivery, String> {
    let id = header(head, "webhook-id");
    let (timestamp, signature) = (header(head, "webhook-timestamp"), header(head, "webhook-signature"));
    let received = Received { id, timestamp, signature, body: body.as_bytes() };
    let key = SigningKey::parse(Receiver::SECRET).expect("a key");
    verify(&key, received, jiff::Timestamp::now()).map_err(|error| error.to_string())?;
    let body = serde_json::from_str(body).map_err(|error| error.to_string())?;
    Ok(Delivery { id: id.to_owned(), body })
}
