//! The null provider, with keys that are counted for as long as they live.
//!
//! A count is that of its thread, where a test has everything to itself.

use std::cell::Cell;

use ssh_proto::Entropy;
use ssh_proto::crypto::{
    BadTag, CipherAlgorithm, ClientExchange, Hash, KexAlgorithm, KexError, OpenPacket, PacketKeys,
    PacketShape, Provider, SealPacket, ServerShare, SharedSecret,
};

use crate::null;

/// The provider.
pub static PROVIDER: Provider = Provider {
    name: "counted",
    deterministic: true,
    kex: &[&Kex],
    ciphers: &[&Cipher],
    macs: null::PROVIDER.macs,
    signatures: null::PROVIDER.signatures,
};

thread_local! {
    static EXCHANGES: Cell<usize> = const { Cell::new(0) };
    static HALVES: Cell<usize> = const { Cell::new(0) };
}

/// The clients' halves of exchanges that live in this thread.
pub fn exchanges() -> usize {
    EXCHANGES.get()
}

/// The sealers and openers that live in this thread.
pub fn halves() -> usize {
    HALVES.get()
}

type Counter = &'static std::thread::LocalKey<Cell<usize>>;

/// Something, counted.
struct Counted<T> {
    thing: T,
    counter: Counter,
}

impl<T> Counted<T> {
    fn new(thing: T, counter: Counter) -> Self {
        counter.set(counter.get() + 1);
        Self { thing, counter }
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        self.counter.set(self.counter.get() - 1);
    }
}

struct Kex;

/// What does the work.
fn kex() -> &'static dyn KexAlgorithm {
    null::PROVIDER.kex[0]
}

impl KexAlgorithm for Kex {
    fn name(&self) -> &'static str {
        kex().name()
    }

    fn hash(&self) -> &'static dyn Hash {
        kex().hash()
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        Ok(Box::new(Counted::new(Some(kex().start(entropy)?), &EXCHANGES)))
    }

    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        kex().respond(client_share, entropy)
    }
}

impl ClientExchange for Counted<Option<Box<dyn ClientExchange>>> {
    fn share(&self) -> &[u8] {
        self.thing.as_ref().expect("it is not complete").share()
    }

    fn complete(mut self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, KexError> {
        self.thing.take().expect("it is not complete").complete(server_share)
    }
}

struct Cipher;

/// What does the work.
fn cipher() -> &'static dyn CipherAlgorithm {
    null::PROVIDER.ciphers[0]
}

impl CipherAlgorithm for Cipher {
    fn name(&self) -> &'static str {
        cipher().name()
    }

    fn key_len(&self) -> usize {
        cipher().key_len()
    }

    fn iv_len(&self) -> usize {
        cipher().iv_len()
    }

    fn is_aead(&self) -> bool {
        cipher().is_aead()
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        Box::new(Counted::new(cipher().sealer(keys), &HALVES))
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        Box::new(Counted::new(cipher().opener(keys), &HALVES))
    }
}

impl SealPacket for Counted<Box<dyn SealPacket>> {
    fn shape(&self) -> PacketShape {
        self.thing.shape()
    }

    fn seal(&mut self, seq: u32, packet: &mut [u8]) {
        self.thing.seal(seq, packet);
    }
}

impl OpenPacket for Counted<Box<dyn OpenPacket>> {
    fn shape(&self) -> PacketShape {
        self.thing.shape()
    }

    fn head_len(&self) -> usize {
        self.thing.head_len()
    }

    fn packet_length(&mut self, seq: u32, head: &[u8]) -> u32 {
        self.thing.packet_length(seq, head)
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), BadTag> {
        self.thing.open(seq, packet)
    }
}
