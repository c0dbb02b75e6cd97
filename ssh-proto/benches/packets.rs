//! What the steps of a packet's way cost: sealing, opening, decoding, and all that a received one sets off.
//!
//! `cargo bench -p ssh-proto --features raw,aws-lc-rs` runs them all; without `aws-lc-rs`, those with RustCrypto.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use divan::Bencher;
use divan::counter::BytesCount;
#[cfg(feature = "aws-lc-rs")]
use ssh_proto::crypto::aws_lc;
use ssh_proto::crypto::rustcrypto::{self, Ed25519Signer};
use ssh_proto::crypto::{CipherAlgorithm, OpenPacket, PacketKeys, Provider, SealPacket};
use ssh_proto::raw::channel::ChannelData;
use ssh_proto::raw::kex::KexInit;
use ssh_proto::raw::{Framer, Message};
use ssh_proto::{
    AuthVerdict, ChannelConfig, ChannelId, ChannelKind, ClientConfig, ClientConnection, ClientEvent,
    Connection, Credential, Entropy, EntropyError, Instant, Role, ServerConfig, ServerConnection,
    ServerEvent, Stream,
};

fn main() {
    divan::main();
}

const NOW: Instant = Instant::ORIGIN;

/// Bytes of data in a packet.
const SIZES: [usize; 2] = [64, 32 * 1024];

/// Provider and cipher.
const CIPHERS: &[(&Provider, &str)] = &[
    (&rustcrypto::PROVIDER, "aes128-gcm@openssh.com"),
    (&rustcrypto::PROVIDER, "chacha20-poly1305@openssh.com"),
    #[cfg(feature = "aws-lc-rs")]
    (&aws_lc::PROVIDER, "aes128-gcm@openssh.com"),
    #[cfg(feature = "aws-lc-rs")]
    (&aws_lc::PROVIDER, "chacha20-poly1305@openssh.com"),
];

/// A provider's cipher, and how much data a packet has.
struct Case {
    provider: &'static Provider,
    cipher: &'static str,
    size: usize,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}, {}", self.provider.name, self.cipher, self.size)
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let of_cipher = |(provider, cipher)| SIZES.map(|size| Case { provider, cipher, size });
    CIPHERS.iter().copied().flat_map(of_cipher)
}

impl Case {
    fn algorithm(&self) -> &'static dyn CipherAlgorithm {
        let mut ciphers = self.provider.ciphers.iter();
        *ciphers.find(|cipher| cipher.name() == self.cipher).expect("the provider has it")
    }

    fn ends(&self) -> (Box<dyn SealPacket>, Box<dyn OpenPacket>) {
        let algorithm = self.algorithm();
        let (key, iv) = (vec![1; algorithm.key_len()], vec![2; algorithm.iv_len()]);
        let keys = PacketKeys { key: &key, iv: &iv, mac: None };
        (algorithm.sealer(&keys), algorithm.opener(&keys))
    }

    /// A packet with room for its tag, and all else that a sealer needs.
    fn packet(&self) -> Vec<u8> {
        let shape = self.ends().0.shape();
        let mut payload = Vec::new();
        ChannelData { recipient: 0, data: &vec![7; self.size] }.encode(&mut payload);
        let padding = shape.block + (shape.block - (1 + payload.len()) % shape.block) % shape.block;
        let length = 1 + payload.len() + padding;
        let mut packet = u32::try_from(length).expect("a short packet").to_be_bytes().to_vec();
        packet.push(u8::try_from(padding).expect("short padding"));
        packet.extend_from_slice(&payload);
        packet.resize(4 + length + shape.tag, 0);
        packet
    }

    fn counter(&self) -> BytesCount {
        BytesCount::new(self.size)
    }
}

#[divan::bench(args = cases())]
fn seal(bencher: Bencher<'_, '_>, case: &Case) {
    let (mut sealer, mut packet, mut seq) = (case.ends().0, case.packet(), 0_u32);
    bencher.counter(case.counter()).bench_local(|| {
        sealer.seal(seq, &mut packet);
        seq = seq.wrapping_add(1);
    });
}

/// Framing and opening: what becomes of the bytes of one packet until its payload is there.
#[divan::bench(args = cases())]
fn open(bencher: Bencher<'_, '_>, case: &Case) {
    let (mut sealer, opener) = case.ends();
    let mut framer = Framer::new(ssh_proto::MAX_PACKET);
    framer.new_keys(opener, true);
    let (packet, mut seq) = (case.packet(), 0_u32);
    let sealed = || {
        let mut packet = packet.clone();
        sealer.seal(seq, &mut packet);
        seq = seq.wrapping_add(1);
        BytesMut::from(Bytes::from(packet))
    };
    bencher.counter(case.counter()).with_inputs(sealed).bench_local_values(|mut input| {
        framer.take(&mut input).expect("it is ours").expect("it is whole");
    });
}

#[divan::bench]
fn decode_channel_data(bencher: Bencher<'_, '_>) {
    let mut payload = Vec::new();
    ChannelData { recipient: 0, data: &[7; 64] }.encode(&mut payload);
    bencher.bench(|| ChannelData::decode(divan::black_box(&payload)).is_ok());
}

/// With every algorithm of the provider.
#[divan::bench]
fn decode_kexinit(bencher: Bencher<'_, '_>) {
    let server = Pair::server(&rustcrypto::PROVIDER, "aes128-gcm@openssh.com");
    // Behind the identification line: length, padding length, payload, padding.
    let packet = server.output().splitn(2, |byte| *byte == b'\n').nth(1).expect("a KEXINIT").to_vec();
    let payload = packet[5..packet.len() - usize::from(packet[4])].to_vec();
    assert!(KexInit::decode(&payload).is_ok());
    bencher.bench(|| KexInit::decode(divan::black_box(&payload)).is_ok());
}

/// A packet of channel data, from the input buffer to the application. The packets of a sample are made at once, and must
/// fit into the window together.
#[divan::bench(args = cases(), sample_size = 16)]
fn dispatch(bencher: Bencher<'_, '_>, case: &Case) {
    let pair = RefCell::new(Pair::new(case.provider, case.cipher));
    let data = vec![7; case.size];
    bencher.counter(case.counter()).with_inputs(|| pair.borrow_mut().send(&data)).bench_local_values(
        |mut input| {
            let mut pair = pair.borrow_mut();
            pair.server.handle_input(NOW, &mut input);
            while pair.server.poll_event().is_some() {}
            let id = pair.ids.1;
            pair.server.channel(id).expect("it is open").read(Stream::Data, usize::MAX).expect("data")
        },
    );
}

/// A client and a server with a channel between them.
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
    ids: (ChannelId, ChannelId),
}

impl Pair {
    fn server(provider: &'static Provider, cipher: &'static str) -> ServerConnection {
        let key = Ed25519Signer::from_seed(&[1; 32]).expect("any seed is a key").key_pair();
        let config = ServerConfig::builder(provider).ciphers(&[cipher]).host_key(key);
        let config = config.with_rekey(|rekey| rekey.bytes = u64::MAX / 2).build().expect("a server");
        ServerConnection::new(config, Box::new(Counting(1)), NOW)
    }

    fn new(provider: &'static Provider, cipher: &'static str) -> Self {
        let config = ClientConfig::builder(provider).ciphers(&[cipher]);
        let config = config.with_rekey(|rekey| rekey.bytes = u64::MAX / 2).build().expect("a client");
        let mut client = ClientConnection::new(Arc::clone(&config), Box::new(Counting(2)), NOW);
        client.authenticate("user", Credential::Password("x".into())).expect("a first attempt");
        let mut server = Self::server(provider, cipher);
        let (mut ours, mut theirs) = (None, None);
        while theirs.is_none() {
            let (mut up, mut down) = (take(&mut client), take(&mut server));
            server.handle_input(NOW, &mut up);
            while let Some(event) = server.poll_event() {
                match event {
                    ServerEvent::Auth(request) => {
                        server.reply_auth(request, AuthVerdict::Accept).expect("it is asked");
                    }
                    ServerEvent::Open(request) => {
                        theirs = server.accept_channel(request, ChannelConfig::default()).ok();
                    }
                    _ => {}
                }
                server.handle_input(NOW, &mut up);
            }
            client.handle_input(NOW, &mut down);
            while let Some(event) = client.poll_event() {
                match event {
                    ClientEvent::HostKey(check) => client.accept_host_key(check).expect("it is asked"),
                    ClientEvent::Authenticated => {
                        ours = client.open_channel(&ChannelKind::Session, ChannelConfig::default()).ok();
                    }
                    _ => {}
                }
                client.handle_input(NOW, &mut down);
            }
        }
        let ids = ours.zip(theirs).expect("a channel");
        let mut pair = Self { client, server, ids };
        pair.answer();
        pair
    }

    /// Lets the client hear what the server has to say.
    fn answer(&mut self) {
        let mut down = take(&mut self.server);
        self.client.handle_input(NOW, &mut down);
        while self.client.poll_event().is_some() {}
    }

    /// The packet of so much data.
    fn send(&mut self, data: &[u8]) -> BytesMut {
        self.answer();
        let sent = self.client.channel(self.ids.0).expect("it is open").write(Stream::Data, data);
        assert_eq!(sent, Ok(data.len()));
        take(&mut self.client)
    }
}

/// What a side has to send.
fn take<R: Role>(conn: &mut Connection<R>) -> BytesMut {
    let output = BytesMut::from(conn.output());
    conn.consume_output(output.len());
    output
}

/// No random source at all: it counts.
struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        for byte in out {
            self.0 = self.0.wrapping_mul(5).wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}
