//! Writers whose own side ends the stream under them.

use std::io::ErrorKind;
use std::time::Duration;

use ssh_io_tokio::Channel;
use tokio::io::AsyncWriteExt;

use crate::rig::{Rig, at_once, doorman, logged_in};

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_for_the_window_fails_when_another_handle_ends_the_stream() {
    let ends: [fn(&Channel); 2] = [|channel| channel.finish_input().unwrap(), |channel| channel.close()];
    for end in ends {
        let Rig { client, remote, .. } = logged_in(doorman).await;
        let channel = client.open_session().await.unwrap();
        // Nobody reads: the window is used up, and stays so.
        remote.with(|end| end.policy.read = false);
        let (other, mut writer) = channel.split();
        let writing = tokio::spawn(async move { writer.write_all(&[0; 5_000_000]).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!writing.is_finished());
        // On a task of its own it hears of it only by being woken.
        end(other.channel());
        assert_eq!(at_once(writing).await.unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
