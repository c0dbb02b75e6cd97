//! Why a call failed: the type that all adapters share.

pub use ssh_proto::adapter::Error;
