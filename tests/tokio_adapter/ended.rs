//! Writers whose own side ends the stream under them.

use std::io::ErrorKind;
use std::pin::pin;

use ssh_io_tokio::Channel;
use tokio::io::AsyncWriteExt;

use crate::rig::{Rig, at_once, doorman, logged_in, poll_once};

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_for_the_window_fails_when_another_handle_ends_the_stream() {
    let ends: [fn(&Channel); 2] = [|channel| channel.finish_input().unwrap(), |channel| channel.close()];
    for end in ends {
        let Rig { client, remote, .. } = logged_in(doorman).await;
        let channel = client.open_session().await.unwrap();
        // Nobody reads: the window is used up, and stays so.
        remote.with(|end| end.policy.read = false);
        let (other, mut writer) = channel.split();
        let mut writing = pin!(writer.write_all(&[0; 5_000_000]));
        for _ in 0..100 {
            assert!(poll_once(writing.as_mut()).await.is_none());
            tokio::task::yield_now().await;
        }
        end(other.channel());
        assert_eq!(at_once(writing).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
