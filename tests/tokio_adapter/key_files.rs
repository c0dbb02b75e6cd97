//! Logging in with a key from a file.

use ssh_io_tokio::{Error, read_key_file};
use ssh_proto::Secret;

use crate::rig::{Rig, connected, talk, within};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ssh-proto/src/keys/testdata/ed25519");

#[tokio::test(start_paused = true)]
async fn a_key_is_read_from_a_file_and_used() {
    let key = read_key_file(FILE, None).await.unwrap();
    assert_eq!(key.public.key_type(), "ssh-ed25519");
    assert!(key.signer.is_some());
    let missing = within(read_key_file("/nowhere/key", None)).await;
    assert!(matches!(missing, Err(Error::Io(_))), "{missing:?}");
    let Rig { client, .. } = connected(talk).await;
    let missing = within(client.auth_key_file("me", "/nowhere/key", None)).await;
    assert!(matches!(missing, Err(Error::Io(_))), "{missing:?}");
    let public = format!("{FILE}.pub");
    let wrong = within(client.auth_key_file("me", public, Some(&Secret::from("x")))).await;
    assert!(matches!(wrong, Err(Error::PrivateKey(_))), "{wrong:?}");
}
