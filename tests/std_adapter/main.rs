//! `ssh-io-std`: its own client against its own server, over sockets and over transports that misbehave.

mod answers;
mod calls;
mod channels;
mod ended;
mod flushes;
mod forwarded;
mod handles;
mod host_keys;
mod judged;
mod jump;
mod kept;
mod login;
mod new_hosts;
mod panics;
mod pipe;
mod places;
mod refused;
mod sealer;
mod sessions;
mod shutdown;
mod stuck;
mod support;
mod switched;

#[path = "../../ssh-io-std/examples/common/loopback.rs"]
mod loopback;
