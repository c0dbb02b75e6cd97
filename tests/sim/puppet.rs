//! A peer moved by hand: it frames, seals and opens packets and computes exchanges like any other, but it
//! sends whatever a test wants, whenever.

use bytes::{Buf, BytesMut};
use ssh_proto::Side;
use ssh_proto::crypto::{
    ClientExchange, Hash, KexAlgorithm, OpenPacket, PacketKeys, PacketShape, Provider, SealPacket,
    SecretEncoding, SharedSecret,
};
use ssh_proto::raw::kex::{EcdhInit, EcdhReply, KexInit, NewKeys};
use ssh_proto::raw::{Message, number};
use ssh_proto::wire::{NameList, PutSsh};

use crate::config::HOST_KEY;
use crate::null;

/// Makes the bytes of a signature over a message, as `string algorithm, string bytes`.
pub type Sign = fn(message: &[u8]) -> Vec<u8>;

/// The blob of a signature by the null provider's key of this number.
pub fn null_signature(key: u32, message: &[u8]) -> Vec<u8> {
    let signature = null::sign(&null::public_key(key), message);
    let mut blob = Vec::new();
    blob.put_string(signature.algorithm().as_bytes());
    blob.put_string(signature.as_bytes());
    blob
}

/// The lists of a KEXINIT.
#[derive(Debug, Clone)]
pub struct Offer {
    /// `kex_algorithms`, markers included.
    pub kex: Vec<String>,
    /// `server_host_key_algorithms`.
    pub host_keys: Vec<String>,
    /// `encryption_algorithms`, both directions.
    pub ciphers: Vec<String>,
    /// `mac_algorithms`, both directions.
    pub macs: Vec<String>,
    /// `compression_algorithms`, both directions.
    pub compression: Vec<String>,
    /// `first_kex_packet_follows`.
    pub follows: bool,
    /// The reserved field.
    pub reserved: u32,
}

impl Offer {
    /// The payload with these lists.
    pub fn payload(&self) -> Vec<u8> {
        let join = |names: &[String]| names.join(",");
        let (kex, host_keys) = (join(&self.kex), join(&self.host_keys));
        let (ciphers, macs, compression) = (join(&self.ciphers), join(&self.macs), join(&self.compression));
        fn list(names: &str) -> NameList<'_> {
            NameList::parse(names.as_bytes()).expect("names of a test are names")
        }
        let mut payload = Vec::new();
        KexInit {
            cookie: &[7; 16],
            kex: list(&kex),
            host_key: list(&host_keys),
            cipher_c2s: list(&ciphers),
            cipher_s2c: list(&ciphers),
            mac_c2s: list(&macs),
            mac_s2c: list(&macs),
            compression_c2s: list(&compression),
            compression_s2c: list(&compression),
            languages_c2s: NameList::EMPTY,
            languages_s2c: NameList::EMPTY,
            first_kex_packet_follows: self.follows,
            reserved: self.reserved,
        }
        .encode(&mut payload);
        payload
    }
}

/// A packet as it was read: its sequence number and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The sequence number.
    pub seq: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Heard {
    /// The message number.
    pub fn number(&self) -> u8 {
        self.payload[0]
    }
}

struct Plain;

const PLAIN: PacketShape = PacketShape { block: 8, length_in_block: true, tag: 0 };

impl SealPacket for Plain {
    fn shape(&self) -> PacketShape {
        PLAIN
    }

    fn seal(&mut self, _: u32, _: &mut [u8]) {}
}

impl OpenPacket for Plain {
    fn shape(&self) -> PacketShape {
        PLAIN
    }

    fn head_len(&self) -> usize {
        4
    }

    fn packet_length(&mut self, _: u32, head: &[u8]) -> u32 {
        u32::from_be_bytes([head[0], head[1], head[2], head[3]])
    }

    fn open(&mut self, _: u32, _: &mut [u8]) -> Result<(), ssh_proto::crypto::BadTag> {
        Ok(())
    }
}

/// The hand-moved peer.
pub struct Puppet {
    side: Side,
    provider: &'static Provider,
    sign: Sign,
    /// The host key blob it shows as a server.
    pub host_key: Vec<u8>,
    /// Its identification line, without CR LF.
    pub ident: Vec<u8>,
    /// The other side's line, once read.
    pub their_ident: Vec<u8>,
    /// Whether it claims strict key exchange.
    pub strict: bool,
    /// The number of the next packet it sends.
    pub seq_out: u32,
    /// The number of the next packet it reads.
    pub seq_in: u32,
    sealer: Box<dyn SealPacket>,
    opener: Box<dyn OpenPacket>,
    next_sealer: Option<Box<dyn SealPacket>>,
    next_opener: Option<Box<dyn OpenPacket>>,
    /// Its last KEXINIT.
    pub our_init: Vec<u8>,
    /// The other side's last KEXINIT.
    pub their_init: Vec<u8>,
    exchange: Option<Box<dyn ClientExchange>>,
    their_share: Vec<u8>,
    /// The exchange hash of the last exchange.
    pub hash: Vec<u8>,
    /// The session identifier, once there is one.
    pub session_id: Vec<u8>,
    inbox: BytesMut,
    /// It looks at nothing it is sent.
    pub deaf: bool,
}

impl Puppet {
    /// A peer that plays `side`.
    pub fn new(side: Side, provider: &'static Provider, host_key: &[u8], sign: Sign) -> Self {
        Self {
            side,
            provider,
            sign,
            host_key: host_key.to_vec(),
            ident: b"SSH-2.0-puppet".to_vec(),
            their_ident: Vec::new(),
            strict: true,
            seq_out: 0,
            seq_in: 0,
            sealer: Box::new(Plain),
            opener: Box::new(Plain),
            next_sealer: None,
            next_opener: None,
            our_init: Vec::new(),
            their_init: Vec::new(),
            exchange: None,
            their_share: Vec::new(),
            hash: Vec::new(),
            session_id: Vec::new(),
            inbox: BytesMut::new(),
            deaf: false,
        }
    }

    /// A peer on the null provider, with the host key of the simulator's servers.
    pub fn null(side: Side) -> Self {
        let key = null::public_key(HOST_KEY);
        Self::new(side, &null::PROVIDER, key.as_blob(), |message| null_signature(HOST_KEY, message))
    }

    /// The role it plays.
    pub fn side(&self) -> Side {
        self.side
    }

    /// What it offers unless a test changes it.
    pub fn offer(&self) -> Offer {
        let first = self.session_id.is_empty();
        let mut kex: Vec<String> = self.provider.kex.iter().map(|kex| kex.name().into()).collect();
        let marker = match self.side {
            Side::Client => ["ext-info-c", "kex-strict-c-v00@openssh.com"],
            Side::Server => ["ext-info-s", "kex-strict-s-v00@openssh.com"],
        };
        if first {
            kex.push(marker[0].into());
            kex.extend(self.strict.then(|| marker[1].into()));
        }
        Offer {
            kex,
            host_keys: self.provider.signatures.iter().map(|key| key.name().into()).collect(),
            ciphers: self.provider.ciphers.iter().map(|cipher| cipher.name().into()).collect(),
            macs: self.provider.macs.iter().map(|mac| mac.name().into()).collect(),
            compression: vec!["none".into()],
            follows: false,
            reserved: 0,
        }
    }

    // ----- Out.

    /// Seals a payload with as little padding as there may be.
    pub fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let shape = self.sealer.shape();
        let head = if shape.length_in_block { 5 } else { 1 };
        let mut padding = shape.block - (head + payload.len()) % shape.block;
        if padding < 4 {
            padding += shape.block;
        }
        let claimed = u8::try_from(padding).expect("a block is short");
        self.seal_padded(payload, padding, claimed)
    }

    /// Seals a payload with `padding` bytes of padding, of which the packet claims to have `claimed`.
    pub fn seal_padded(&mut self, payload: &[u8], padding: usize, claimed: u8) -> Vec<u8> {
        let length = u32::try_from(1 + payload.len() + padding).expect("a packet is short");
        let mut packet = length.to_be_bytes().to_vec();
        packet.push(claimed);
        packet.extend_from_slice(payload);
        packet.resize(packet.len() + padding + self.sealer.shape().tag, 0);
        self.sealer.seal(self.seq_out, &mut packet);
        self.seq_out = self.seq_out.wrapping_add(1);
        packet
    }

    /// The payload of message 30, for the method that comes out of both KEXINITs.
    pub fn init(&mut self) -> Vec<u8> {
        let exchange = self.kex().start(&mut Fixed(9)).expect("the entropy does not fail");
        let mut payload = Vec::new();
        EcdhInit { share: exchange.share() }.encode(&mut payload);
        self.exchange = Some(exchange);
        payload
    }

    /// The payload of message 31, answering the share that was read.
    pub fn reply(&mut self) -> Vec<u8> {
        let sign = self.sign;
        self.reply_signed(sign)
    }

    /// The payload of message 31 with a signature blob of the test's choosing.
    pub fn reply_signed(&mut self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let kex = self.kex();
        let share = kex.respond(&self.their_share, &mut Fixed(5)).expect("the share is a good one");
        let (host_key, theirs) = (self.host_key.clone(), self.their_share.clone());
        self.finish(kex, &host_key, &theirs, &share.share, &share.secret);
        let signature = sign(&self.hash);
        let mut payload = Vec::new();
        EcdhReply { host_key: &self.host_key, share: &share.share, signature: &signature }
            .encode(&mut payload);
        payload
    }

    /// Seals NEWKEYS, and everything after it under the new keys.
    pub fn new_keys(&mut self) -> Vec<u8> {
        let mut payload = Vec::new();
        NewKeys {}.encode(&mut payload);
        let packet = self.seal(&payload);
        self.sealer = self.next_sealer.take().expect("the exchange is complete");
        if self.is_strict() {
            self.seq_out = 0;
        }
        packet
    }

    // ----- In.

    /// Takes bytes of the other side, and gives the packets in them.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<Heard> {
        if self.deaf {
            return Vec::new();
        }
        self.inbox.extend_from_slice(bytes);
        if self.their_ident.is_empty() {
            let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') else { return Vec::new() };
            self.their_ident = self.inbox[..end - 1].to_vec();
            self.inbox.advance(end + 1);
        }
        let mut heard = Vec::new();
        while let Some(packet) = self.open() {
            self.note(&packet.payload);
            heard.push(packet);
        }
        heard
    }

    fn open(&mut self) -> Option<Heard> {
        let head = self.inbox.get(..self.opener.head_len())?;
        let length = self.opener.packet_length(self.seq_in, head) as usize;
        let total = 4 + length + self.opener.shape().tag;
        assert!(self.inbox.len() >= total, "output consists of whole packets");
        let mut packet = self.inbox.split_to(total);
        self.opener.open(self.seq_in, &mut packet).expect("the packet's tag verifies");
        let payload = packet[5..4 + length - usize::from(packet[4])].to_vec();
        let seq = self.seq_in;
        self.seq_in = self.seq_in.wrapping_add(1);
        Some(Heard { seq, payload })
    }

    /// What a packet means for the exchange under way.
    fn note(&mut self, payload: &[u8]) {
        match payload[0] {
            number::KEXINIT => self.their_init = payload.to_vec(),
            number::NEWKEYS => {
                self.opener = self.next_opener.take().expect("the exchange is complete");
                if self.is_strict() {
                    self.seq_in = 0;
                }
            }
            number::KEX_ECDH_INIT => {
                self.their_share = EcdhInit::decode(payload).expect("well-formed").share.to_vec();
            }
            number::KEX_ECDH_REPLY => {
                let reply = EcdhReply::decode(payload).expect("well-formed");
                let exchange = self.exchange.take().expect("a share was sent");
                let ours = exchange.share().to_vec();
                let secret = exchange.complete(reply.share).expect("the share is a good one");
                self.finish(self.kex(), reply.host_key, &ours, reply.share, &secret);
            }
            _ => {}
        }
    }

    // ----- The exchange.

    /// Both KEXINITs: the client's, the server's.
    fn inits(&self) -> (KexInit<'_>, KexInit<'_>) {
        let ours = KexInit::decode(&self.our_init).expect("our KEXINIT is well-formed");
        let theirs = KexInit::decode(&self.their_init).expect("their KEXINIT is well-formed");
        if self.side == Side::Client { (ours, theirs) } else { (theirs, ours) }
    }

    fn kex(&self) -> &'static dyn KexAlgorithm {
        let (client, server) = self.inits();
        let common = client.kex.iter().filter(|name| server.kex.contains(name));
        let mut known = common.filter_map(|name| self.provider.kex.iter().find(|kex| kex.name() == name));
        *known.next().expect("a common method")
    }

    fn is_strict(&self) -> bool {
        self.strict
    }

    fn finish(
        &mut self,
        kex: &'static dyn KexAlgorithm,
        host_key: &[u8],
        client_share: &[u8],
        server_share: &[u8],
        secret: &SharedSecret,
    ) {
        let (mut idents, mut inits) = ([&self.ident, &self.their_ident], [&self.our_init, &self.their_init]);
        if self.side == Side::Server {
            idents.reverse();
            inits.reverse();
        }
        let mut fields = Vec::new();
        for field in idents.into_iter().chain(inits) {
            fields.put_string(field);
        }
        for field in [host_key, client_share, server_share] {
            fields.put_string(field);
        }
        let mut k = Vec::new();
        match secret.encoding() {
            SecretEncoding::Mpint => k.put_mpint(secret.as_bytes()),
            SecretEncoding::String => k.put_string(secret.as_bytes()),
        }
        self.hash = kex.hash().digest(&[&fields, &k]).as_bytes().to_vec();
        if self.session_id.is_empty() {
            self.session_id = self.hash.clone();
        }
        let (sealer, _) = self.direction(kex.hash(), &k, self.side);
        let (_, opener) = self.direction(kex.hash(), &k, other(self.side));
        self.next_sealer = Some(sealer);
        self.next_opener = Some(opener);
    }

    /// Both halves of the direction in which `sender` sends.
    fn direction(
        &self,
        hash: &dyn Hash,
        k: &[u8],
        sender: Side,
    ) -> (Box<dyn SealPacket>, Box<dyn OpenPacket>) {
        let (client, server) = self.inits();
        let (letters, ciphers, macs) = match sender {
            Side::Client => {
                (b"ACE", (client.cipher_c2s, server.cipher_c2s), (client.mac_c2s, server.mac_c2s))
            }
            Side::Server => {
                (b"BDF", (client.cipher_s2c, server.cipher_s2c), (client.mac_s2c, server.mac_s2c))
            }
        };
        let common = |(client, server): (NameList<'_>, NameList<'_>)| {
            client.iter().find(|name| server.contains(name)).unwrap_or_default().to_owned()
        };
        let (cipher, mac) = (common(ciphers), common(macs));
        let cipher = self.provider.ciphers.iter().find(|c| c.name() == cipher).expect("a common cipher");
        let mac = self.provider.macs.iter().find(|m| m.name() == mac).filter(|_| !cipher.is_aead());
        let derive = |letter: u8, len: usize| {
            let mut out = Vec::new();
            let mut block = hash.digest(&[k, &self.hash, &[letter], &self.session_id]);
            while out.len() < len {
                out.extend_from_slice(block.as_bytes());
                block = hash.digest(&[k, &self.hash, &out]);
            }
            out.truncate(len);
            out
        };
        let (iv, key) = (derive(letters[0], cipher.iv_len()), derive(letters[1], cipher.key_len()));
        let mac_key = mac.map(|mac| derive(letters[2], mac.key_len())).unwrap_or_default();
        let keys = PacketKeys { key: &key, iv: &iv, mac: mac.map(|mac| (*mac, &mac_key[..])) };
        (cipher.sealer(&keys), cipher.opener(&keys))
    }
}

/// The other role.
fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    }
}

/// Bytes that count up from a start.
struct Fixed(u8);

impl ssh_proto::Entropy for Fixed {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), ssh_proto::EntropyError> {
        for byte in out {
            self.0 = self.0.wrapping_mul(5).wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}
