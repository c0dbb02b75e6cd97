//! The data types of [RFC 4251 §5] on the wire, and the identification line of [RFC 4253 §4.2].
//!
//! [RFC 4251 §5]: https://www.rfc-editor.org/rfc/rfc4251#section-5
//! [RFC 4253 §4.2]: https://www.rfc-editor.org/rfc/rfc4253#section-4.2

pub mod decode;
pub mod encode;
pub(crate) mod ident;
pub mod name_list;

pub use encode::PutSsh;
pub use name_list::NameList;
