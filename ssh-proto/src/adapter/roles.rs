//! Events, sorted into what every adapter handles alike and what belongs to a role.

use alloc::vec::Vec;

use super::{Login, Questions, Startup};
use crate::connection::Connection;
use crate::error::CloseReason;
use crate::event::{ChannelEvent, ChannelId, ClientEvent, ServerEvent};
use crate::msg::request::OpenFailure;
use crate::role::{Client, Role, Server};
use crate::text::PeerText;
use crate::ticket::HostKeyCheck;

/// What an adapter hears of a connection, whatever its role.
#[derive(Debug)]
pub enum News {
    /// A channel of ours is open.
    Opened(ChannelId),
    /// A channel of ours was refused.
    OpenFailed(ChannelId, OpenFailure),
    /// Something happened on a channel.
    Channel(ChannelId, ChannelEvent),
    /// A request that was refused as `Full` may be made again.
    Ready,
    /// The end.
    Closed(CloseReason),
    /// The role's part took it.
    Taken,
    /// The role's part took it, and the peer is authenticated.
    Authenticated,
}

/// A role with what an adapter keeps for it between the event and the call that wants it.
pub trait AdapterRole: Role {
    /// What is kept.
    type Kept: Default + Send;

    /// Takes the next event. `None` only when there is none: channels and the close must get through.
    fn take_event(conn: &mut Connection<Self>, kept: &mut Self::Kept) -> Option<News>;
}

/// What a client's adapter keeps.
#[derive(Debug, Default)]
pub struct ClientKept {
    /// The attempt to log in.
    pub login: Login,
    /// The host key that is to be judged.
    pub host_key: Option<HostKeyCheck>,
    /// What the server said before the login.
    pub banners: Vec<PeerText>,
    /// How often keys were renewed.
    pub rekeys: u64,
}

impl AdapterRole for Client {
    type Kept = ClientKept;

    fn take_event(conn: &mut Connection<Self>, kept: &mut ClientKept) -> Option<News> {
        match conn.poll_event()? {
            ClientEvent::Opened(id) => return Some(News::Opened(id)),
            ClientEvent::OpenFailed(id, why) => return Some(News::OpenFailed(id, why)),
            ClientEvent::Channel(id, event) => return Some(News::Channel(id, event)),
            ClientEvent::Ready => return Some(News::Ready),
            ClientEvent::Closed(reason) => return Some(News::Closed(reason)),
            ClientEvent::Authenticated => {
                kept.login.accepted();
                return Some(News::Authenticated);
            }
            ClientEvent::AuthFailed { remaining, partial } => kept.login.failed(remaining, partial),
            ClientEvent::Sign(request) => kept.login.asked(request),
            ClientEvent::HostKey(check) => kept.host_key = Some(check),
            ClientEvent::Banner(text) => kept.banners.push(text),
            ClientEvent::Rekeyed => kept.rekeys = kept.rekeys.saturating_add(1),
            // Refused by being dropped: nothing was asked for that a server may open or request.
            ClientEvent::Open(_) | ClientEvent::Global(_) | ClientEvent::GlobalReply(..) => {}
        }
        Some(News::Taken)
    }
}

/// What a server's adapter keeps.
#[derive(Debug, Default)]
pub struct ServerKept {
    /// What waits for whoever answers.
    pub questions: Questions,
    /// The client's place among those that have not logged in, held until it has or until its transport and who
    /// answers it are gone; for that the adapter sees to it.
    pub startup: Option<Startup>,
    /// How often keys were renewed.
    pub rekeys: u64,
}

impl AdapterRole for Server {
    type Kept = ServerKept;

    fn take_event(conn: &mut Connection<Self>, kept: &mut ServerKept) -> Option<News> {
        match conn.poll_event()? {
            ServerEvent::Opened(id) => return Some(News::Opened(id)),
            ServerEvent::OpenFailed(id, why) => return Some(News::OpenFailed(id, why)),
            ServerEvent::Ready => return Some(News::Ready),
            ServerEvent::Closed(reason) => return Some(News::Closed(reason)),
            ServerEvent::Rekeyed => kept.rekeys = kept.rekeys.saturating_add(1),
            ServerEvent::GlobalReply(..) => {}
            ServerEvent::Channel(id, ChannelEvent::Closed) => {
                // At most one for each channel that was accepted.
                kept.questions.tell(ServerEvent::Channel(id, ChannelEvent::Closed));
                return Some(News::Channel(id, ChannelEvent::Closed));
            }
            ServerEvent::Channel(id, event) if !matches!(event, ChannelEvent::Request(_)) => {
                return Some(News::Channel(id, event));
            }
            ServerEvent::Authenticated(who) => {
                kept.startup = None;
                kept.questions.tell(ServerEvent::Authenticated(who));
                return Some(News::Authenticated);
            }
            // At most one at a time, and without it the connection is over: it is not for others to crowd out.
            ServerEvent::Sign(request) => kept.questions.tell(ServerEvent::Sign(request)),
            question => kept.questions.ask(question, conn.limits()),
        }
        Some(News::Taken)
    }
}
