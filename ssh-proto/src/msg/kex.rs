//! Key exchange messages, RFC 4253 §7–§8 and RFC 5656 §4.

use super::messages;
use crate::wire::NameList;
use crate::wire::decode::{boolean, bytes, name_list, string, uint32};

/// The longest KEXINIT, in bytes.
pub const MAX_KEXINIT: usize = 16 * 1024;

messages! {
    /// `SSH_MSG_KEXINIT`, RFC 4253 §7.1.
    KexInit<'a> = KEXINIT {
        /// Random bytes.
        cookie: &'a [u8; 16] = bytes::<16>, put_slice;
        /// `kex_algorithms`.
        kex: NameList<'a> = name_list, put_list;
        /// `server_host_key_algorithms`.
        host_key: NameList<'a> = name_list, put_list;
        /// `encryption_algorithms_client_to_server`.
        cipher_c2s: NameList<'a> = name_list, put_list;
        /// `encryption_algorithms_server_to_client`.
        cipher_s2c: NameList<'a> = name_list, put_list;
        /// `mac_algorithms_client_to_server`.
        mac_c2s: NameList<'a> = name_list, put_list;
        /// `mac_algorithms_server_to_client`.
        mac_s2c: NameList<'a> = name_list, put_list;
        /// `compression_algorithms_client_to_server`.
        compression_c2s: NameList<'a> = name_list, put_list;
        /// `compression_algorithms_server_to_client`.
        compression_s2c: NameList<'a> = name_list, put_list;
        /// `languages_client_to_server`.
        languages_c2s: NameList<'a> = name_list, put_list;
        /// `languages_server_to_client`.
        languages_s2c: NameList<'a> = name_list, put_list;
        /// Whether a guessed key exchange packet follows.
        first_kex_packet_follows: bool = boolean, put_bool;
        /// Reserved, zero today; any value is accepted and hashed.
        reserved: u32 = uint32, put_u32;
    }

    /// `SSH_MSG_NEWKEYS`.
    NewKeys = NEWKEYS {}

    /// `SSH_MSG_KEX_ECDH_INIT`, and every other method's first message of that form.
    EcdhInit<'a> = KEX_ECDH_INIT {
        /// The client's share.
        share: &'a [u8] = string, put_string;
    }

    /// `SSH_MSG_KEX_ECDH_REPLY`.
    EcdhReply<'a> = KEX_ECDH_REPLY {
        /// The server's host key blob.
        host_key: &'a [u8] = string, put_string;
        /// The server's share.
        share: &'a [u8] = string, put_string;
        /// The signature over the exchange hash: `string algorithm, string bytes`.
        signature: &'a [u8] = string, put_string;
    }
}
