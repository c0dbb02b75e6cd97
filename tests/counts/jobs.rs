//! What is counted.

use std::sync::Arc;

use ssh_proto::{
    AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequestKind, Client,
    ClientConfig, ClientEvent, Credential, ExitStatus, Instant, Server, ServerConfig, ServerEvent, Stream,
    WriteError,
};
use ssh_tests::{Adapter, null_client, null_key, null_server};

const NOW: Instant = Instant::ORIGIN;
/// So many channels are many, and each has a window of at least so many bytes.
const MANY: usize = 1000;
const WINDOW: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// A key exchange, a login with a key, and the end.
    Handshake,
    /// 32 KiB from one end to the other.
    Bulk,
    /// 64 bytes there and back.
    Echo,
    /// The same beside a thousand channels that are open.
    EchoAmongMany,
    /// A command: a channel, the request, a line of output, how it ended, and the close by both.
    Exec,
    /// The same beside a thousand channels, its own among them.
    ExecAmongMany,
    /// A channel opened and closed.
    Channel,
}

impl Job {
    pub(crate) const ALL: [Self; 7] = [
        Self::Handshake,
        Self::Bulk,
        Self::Echo,
        Self::EchoAmongMany,
        Self::Exec,
        Self::ExecAmongMany,
        Self::Channel,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Bulk => "32-kib",
            Self::Echo => "echo",
            Self::EchoAmongMany => "echo-among-1000",
            Self::Exec => "exec",
            Self::ExecAmongMany => "exec-among-1000",
            Self::Channel => "channel",
        }
    }

    pub(crate) fn times(self) -> u32 {
        if self == Self::Handshake { 100 } else { 1000 }
    }

    pub(crate) fn run(self, times: u32) {
        match self {
            Self::Handshake => (0..times).for_each(|_| Ends::logged_in().close()),
            Self::Bulk => {
                let mut ends = Ends::logged_in();
                let ids = ends.open();
                let data = vec![7; 32 * 1024];
                (0..times).for_each(|_| ends.send(ids, &data));
            }
            Self::Echo => Ends::logged_in().echo(times, 0),
            Self::EchoAmongMany => Ends::logged_in().echo(times, MANY - 1),
            Self::Exec => Ends::logged_in().exec(times, 0),
            Self::ExecAmongMany => Ends::logged_in().exec(times, MANY - 1),
            Self::Channel => {
                let mut ends = Ends::logged_in();
                for _ in 0..times {
                    let (ours, theirs) = ends.open();
                    ends.client.conn.channel(ours).unwrap().release();
                    ends.server.conn.channel(theirs).unwrap().release();
                    ends.go_on();
                }
                assert_eq!(ends.client.conn.memory_usage().channels, 0);
            }
        }
    }
}

/// What a client hears of its programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    output: usize,
    exits: usize,
    closes: usize,
}

struct Ends {
    client: Adapter<Client>,
    server: Adapter<Server>,
    opened: Option<ChannelId>,
    accepted: Option<ChannelId>,
    logged_in: bool,
    heard: Heard,
}

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let channels = |limits: &mut ssh_proto::Limits| {
        limits.max_channels = MANY;
        limits.min_window = WINDOW;
    };
    let client = null_client().with_limits(channels).build().unwrap();
    (client, null_server().with_limits(channels).build().unwrap())
}

impl Ends {
    fn logged_in() -> Self {
        let (client, server) = configs();
        let mut ends = Self {
            client: Adapter::new(client, 1),
            server: Adapter::new(server, 2),
            opened: None,
            accepted: None,
            logged_in: false,
            heard: Heard::default(),
        };
        let credential = Credential::PublicKey { key: null_key(2), probe: false };
        ends.client.conn.authenticate("user", credential).unwrap();
        ends.go_on();
        assert!(ends.logged_in);
        ends
    }

    fn close(mut self) {
        self.client.conn.close(ssh_proto::Disconnect::by_application());
        self.go_on();
        assert!(self.server.conn.is_closed());
    }

    /// Until nothing more happens by itself.
    fn go_on(&mut self) {
        let Self { client, server, opened, accepted, logged_in, heard } = self;
        loop {
            let busy = client.take(NOW, &mut server.conn) | server.take(NOW, &mut client.conn);
            loop {
                client.conn.handle_input(NOW, client.pool.buffer());
                match client.conn.poll_event() {
                    Some(ClientEvent::HostKey(check)) => client.conn.accept_host_key(check).unwrap(),
                    Some(ClientEvent::Authenticated) => *logged_in = true,
                    Some(ClientEvent::Opened(id)) => *opened = Some(id),
                    Some(ClientEvent::Channel(id, ChannelEvent::Readable(_))) => {
                        let mut channel = client.conn.channel(id).unwrap();
                        while let Ok(data) = channel.read(Stream::Data, usize::MAX) {
                            heard.output += data.len();
                        }
                    }
                    Some(ClientEvent::Channel(_, ChannelEvent::Exit(_))) => heard.exits += 1,
                    Some(ClientEvent::Channel(id, ChannelEvent::Closed)) => {
                        heard.closes += 1;
                        client.conn.channel(id).unwrap().release();
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            loop {
                server.conn.handle_input(NOW, server.pool.buffer());
                match server.conn.poll_event() {
                    Some(ServerEvent::Auth(request)) => {
                        server.conn.reply_auth(request, AuthVerdict::Accept).unwrap();
                    }
                    Some(ServerEvent::Open(request)) => {
                        let config = ChannelConfig::default();
                        *accepted = Some(server.conn.accept_channel(request, config).unwrap());
                    }
                    // There is one command, which does at once what it does.
                    Some(ServerEvent::Channel(id, ChannelEvent::Request(request))) => {
                        server.conn.reply_request(request, true).unwrap();
                        let mut channel = server.conn.channel(id).unwrap();
                        assert_eq!(channel.write(Stream::Data, &OUTPUT), Ok(OUTPUT.len()));
                        let exit = ChannelRequestKind::Exit(ExitStatus::Code(0));
                        channel.request(&exit, false).unwrap();
                        channel.close();
                    }
                    Some(ServerEvent::Channel(id, ChannelEvent::Closed)) => {
                        server.conn.channel(id).unwrap().release();
                    }
                    // What comes for another program goes back at once, when there is room for it.
                    Some(ServerEvent::Channel(id, ChannelEvent::Readable(_))) => {
                        let mut channel = server.conn.channel(id).unwrap();
                        while let Ok(data) = channel.read(Stream::Data, usize::MAX) {
                            if data.len() == ECHO.len() {
                                assert_eq!(channel.write(Stream::Data, &data), Ok(data.len()));
                            }
                        }
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn open(&mut self) -> (ChannelId, ChannelId) {
        self.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
        self.go_on();
        (self.opened.take().expect("it is confirmed"), self.accepted.take().expect("it is accepted"))
    }

    fn send(&mut self, (ours, _): (ChannelId, ChannelId), data: &[u8]) {
        let mut sent = 0;
        while sent < data.len() {
            match self.client.conn.channel(ours).unwrap().write(Stream::Data, &data[sent..]) {
                Ok(n) => sent += n,
                Err(WriteError::Blocked) => self.go_on(),
                Err(error) => panic!("{error}"),
            }
        }
        self.go_on();
    }

    fn echo(&mut self, times: u32, others: usize) {
        for _ in 0..others {
            self.open();
        }
        let ids = self.open();
        (0..times).for_each(|_| self.send(ids, &ECHO));
    }

    fn exec(&mut self, times: u32, others: usize) {
        for _ in 0..others {
            self.open();
        }
        let command = ChannelRequestKind::exec("say it");
        for _ in 0..times {
            let (ours, _) = self.open();
            self.client.conn.channel(ours).unwrap().request(&command, true).unwrap();
            self.go_on();
            let all = Heard { output: OUTPUT.len(), exits: 1, closes: 1 };
            assert_eq!(std::mem::take(&mut self.heard), all);
        }
        let usage = [self.client.conn.memory_usage(), self.server.conn.memory_usage()];
        assert_eq!(usage.map(|usage| usage.channels), [others; 2]);
    }
}

const ECHO: [u8; 64] = [7; 64];
const OUTPUT: [u8; 16] = [7; 16];
