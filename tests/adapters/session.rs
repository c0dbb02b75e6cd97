//! The session that is broken at every byte, and what its two sides may say of that.

use std::io;
use std::sync::Arc;

use ssh_io_tokio::Error;
use ssh_proto::{ClientConfig, CloseReason, DisconnectCode, ExitStatus, Limits, ServerConfig};
use ssh_tests::{null_client, null_server};

use crate::line::{Calls, Cut};

/// What goes there and back.
pub(crate) const DATA: &[u8] = b"a few words that come back as they were sent";
/// The same in pieces. Behind the first the client asks for new keys, and behind the second the server. Each comes
/// back before the next is sent, so that neither exchange crosses the other or the end.
pub(crate) fn pieces() -> [&'static [u8]; 3] {
    let (first, rest) = DATA.split_at(15);
    let (second, third) = rest.split_at(15);
    [first, second, third]
}

/// So often.
const REKEYS: u64 = 2;

/// What is said on the other stream.
pub(crate) const COMPLAINT: &[u8] = b"complaint";
pub(crate) const STATUS: ExitStatus = ExitStatus::Code(7);

/// Small, since so much is read behind the end of a connection.
pub(crate) const RECV_BUDGET: usize = 2 << 20;

/// Both configurations.
pub(crate) fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let limits = |limits: &mut Limits| limits.recv_budget = RECV_BUDGET;
    (null_client().with_limits(limits).build().unwrap(), null_server().with_limits(limits).build().unwrap())
}

/// What a client's program said: its output, the other stream, its end.
pub(crate) type Whole = (Vec<u8>, Vec<u8>, Option<ExitStatus>);

/// What became of a session.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What the client got.
    pub(crate) client: Result<Whole, Error>,
    /// What another handle on the channel heard, if it came to be.
    pub(crate) waiter: Option<Result<Option<ExitStatus>, Error>>,
    /// What a call behind the end said, when the client failed.
    pub(crate) after: Option<Error>,
    /// How often the client renewed its keys, and how often the server did.
    pub(crate) rekeys: [u64; 2],
    /// What the server was told.
    pub(crate) server: CloseReason,
    /// How many bytes each side wrote.
    pub(crate) carried: [usize; 2],
    pub(crate) calls: [Calls; 2],
    /// How much each side did not read of what is behind the other's end.
    pub(crate) unread: [usize; 2],
}

/// An error of a stream as the call's own.
pub(crate) fn own(error: io::Error) -> Error {
    match error.downcast() {
        Ok(inner) => inner,
        Err(error) => Error::Io(error),
    }
}

/// Whether a broken line is what the error tells of.
fn tells(error: &Error, cut: Cut) -> bool {
    match (error, cut) {
        (Error::Io(error), Cut::Reset) => error.kind() == io::ErrorKind::ConnectionReset,
        // Whoever happens to write sees it sooner.
        (Error::Io(error), Cut::Eof) => error.kind() == io::ErrorKind::BrokenPipe,
        (Error::Closed(reason), Cut::Eof) => *reason == CloseReason::Eof,
        _ => false,
    }
}

impl Ended {
    /// Whether the client got everything.
    pub(crate) fn is_whole(&self) -> bool {
        match &self.client {
            Ok(whole) => {
                assert_eq!(*whole, (DATA.to_vec(), COMPLAINT.to_vec(), Some(STATUS)));
                assert_eq!(self.rekeys, [REKEYS; 2], "{self:?}");
                assert!(matches!(&self.waiter, Some(Ok(Some(status))) if *status == STATUS), "{self:?}");
                true
            }
            Err(_) => false,
        }
    }

    /// Nothing was wrong.
    pub(crate) fn check_whole(&self) {
        assert!(self.is_whole(), "{self:?}");
        self.check_farewell();
    }

    /// The server read the client's last words.
    pub(crate) fn check_farewell(&self) {
        let by_application = DisconnectCode::BY_APPLICATION;
        assert!(
            matches!(&self.server, CloseReason::PeerDisconnected { code, .. } if *code == by_application),
            "{self:?}"
        );
    }

    /// The line was cut. Whether the client had everything by then.
    pub(crate) fn check_cut(&self, cut: Cut) -> bool {
        assert_eq!(self.server, CloseReason::Eof, "{self:?}");
        if self.is_whole() {
            return true;
        }
        let heard = self.client.as_ref().err().into_iter().chain(self.after.as_ref());
        let waiter = self.waiter.as_ref().and_then(|result| result.as_ref().err());
        let mut told = 0;
        for error in heard.chain(waiter) {
            assert!(tells(error, cut), "{error:?} of {self:?}");
            told += 1;
        }
        assert!(told >= 2, "{self:?}");
        false
    }
}
