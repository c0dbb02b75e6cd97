//! What both sides can see of a connection.

use ssh_io_tokio::{Asked, Client, Error, HostKeys, ServerConnection};
use ssh_proto::AuthVerdict;
use ssh_tests::{null_client, null_server};

use crate::rig::{PASSWORD, within};

#[tokio::test(start_paused = true)]
async fn a_client_is_shown_a_banner_before_it_is_logged_in() {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let (server, driver) = ServerConnection::start(null_server().build().unwrap(), theirs);
    tokio::spawn(driver.run());
    server.banner("be welcome").unwrap();
    let answering = server.clone();
    tokio::spawn(async move {
        while let Some(asked) = answering.asked().await {
            if let Asked::Auth(question) = asked {
                question.reply(AuthVerdict::Accept).unwrap();
            }
        }
    });
    let builder = Client::with_config(null_client().build().unwrap()).host_keys(HostKeys::DangerousAcceptAny);
    let client = within(builder.connect_over("test", 22, ours)).await.unwrap();
    within(client.auth_password("me", PASSWORD)).await.unwrap();
    let banners: Vec<_> = client.take_banners().iter().map(ToString::to_string).collect();
    assert_eq!(banners, ["be welcome"]);
    assert!(client.session_id().is_some());
    assert_eq!(client.session_id(), server.session_id());
    let over = |client: &Client, server: &ServerConnection| {
        [(client.is_closed(), client.close_reason()), (server.is_closed(), server.close_reason())]
    };
    assert_eq!(over(&client, &server), [(false, None), (false, None)]);
    let late = server.banner("too late");
    assert!(matches!(late, Err(Error::Misuse(_))), "{late:?}");
    server.close();
    let (at_client, at_server) = (within(client.closed()).await, within(server.closed()).await);
    assert_eq!(over(&client, &server), [(true, Some(at_client)), (true, Some(at_server))]);
}
