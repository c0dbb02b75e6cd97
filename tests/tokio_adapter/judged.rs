//! Connections that end while their host key is judged.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use ssh_io_tokio::{Client, Error, HostKeys, ServerConnection};
use ssh_proto::{CloseReason, DisconnectCode};
use ssh_tests::{null_client, null_server};
use tokio::sync::Notify;

use crate::gate::{Gated, Switch, Writes};
use crate::rig::within;

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// The transport fails: what was written is never flushed.
    Fails,
    /// The driver is dropped.
    Aborted,
    /// The driver is dropped by a panic.
    Panics,
}

#[tokio::test(start_paused = true)]
async fn an_end_while_the_host_key_is_judged_is_told_with_its_reason() {
    for end in [End::Fails, End::Aborted, End::Panics] {
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let (_server, driver) = ServerConnection::start(null_server().build().unwrap(), theirs);
        tokio::spawn(driver.run());
        let (switch, now) = (Switch::default(), Arc::new(Notify::new()));
        switch.set(Writes::Keep);
        let (fails, ends) = (switch.clone(), Arc::clone(&now));
        let judge = HostKeys::ask(async move |_| {
            match end {
                End::Fails => fails.set(Writes::Fail),
                End::Aborted | End::Panics => ends.notify_one(),
            }
            // All that comes of it has come.
            tokio::time::sleep(Duration::from_millis(1)).await;
            true
        });
        let builder = Client::with_config(null_client().build().unwrap()).host_keys(judge);
        let (connecting, driver) = builder.start("test", 22, Gated(ours, switch)).await.unwrap();
        let driving = tokio::spawn(async move {
            // Inside, so that the driver is dropped by the panic and not before it.
            let ended = async {
                now.notified().await;
                assert!(end != End::Panics, "beside a driver, as the test asks for it");
            };
            tokio::select! {
                reason = driver.run() => drop(reason),
                () = ended => {}
            }
        });
        let error = within(connecting.finish()).await.unwrap_err();
        match (&error, end) {
            (Error::Io(error), End::Fails) => assert_eq!(error.kind(), ErrorKind::BrokenPipe),
            (Error::Closed(reason), End::Aborted | End::Panics) => {
                assert_eq!(*reason, CloseReason::Local(DisconnectCode::BY_APPLICATION));
            }
            _ => panic!("{end:?}: {error:?}"),
        }
        assert_eq!(within(driving).await.is_err(), end == End::Panics);
    }
}
