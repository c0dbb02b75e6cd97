//! Against a real server.

use std::future::Future;
use std::io;

use ssh_io_tokio::ssh_proto::ChannelRequestKind;
use ssh_io_tokio::{Client, Error, HostKeys};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, stderr, stdin, stdout};
use tokio::time::timeout;

use crate::args::{Args, Destination, Trust, text};
use crate::exit::exit_code;
use crate::figures::describe;

/// Connects, runs the command, and gives the exit code for this process.
pub(crate) async fn run(args: &Args, Destination { user, host }: &Destination) -> Result<u8, String> {
    // Before the host's key may be recorded.
    let credential = args.credential()?;
    let mut builder = Client::builder().host_keys(host_keys(args)?);
    if let Some(timeout) = args.timeout() {
        builder = builder.connect_timeout(timeout);
    }
    let client = builder.connect(host, args.port).await.map_err(|error| match error {
        Error::Io(error) => format!("{host} port {}: {error}", args.port),
        error => text(error),
    })?;
    if args.verbose {
        let _ = describe(&mut io::stderr(), client.idents(), client.negotiated());
    }
    in_time(args, client.authenticate(user, credential)).await.map_err(text)?;
    let code = run_command(&client, args).await.map_err(text)?;
    client.close();
    client.closed().await;
    Ok(code)
}

fn host_keys(args: &Args) -> Result<HostKeys, String> {
    Ok(match args.trust()? {
        Trust::Fingerprint(fingerprint) => HostKeys::Fingerprint(fingerprint),
        Trust::KnownHosts(file) => HostKeys::KnownHosts(file),
        Trust::AcceptNew(file) => HostKeys::AcceptNew { file, hash: false },
    })
}

async fn in_time<T>(args: &Args, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match args.timeout() {
        Some(limit) => timeout(limit, future).await.unwrap_or(Err(Error::TimedOut)),
        None => future.await,
    }
}

async fn run_command(client: &Client, args: &Args) -> Result<u8, Error> {
    // A command may be silent for as long as it likes, once it runs.
    let channel = in_time(args, async {
        let channel = client.open_session().await?;
        channel.exec(args.command_line()).await?;
        Ok(channel)
    })
    .await?;
    let mut input = channel.clone();
    // It may be blocked on a terminal when the command is done; then the process ends around it.
    tokio::spawn(async move {
        let _ = copy(&mut stdin(), &mut input).await;
        let _ = input.finish_input();
    });
    // As OpenSSH does: its server then lets the command know. Others need not understand it.
    let end_of_writing = ChannelRequestKind::Other { name: "eow@openssh.com".into(), data: Vec::new() };
    let gone = async { drop(channel.send_request(&end_of_writing, false).await) };
    // What came on either before the connection was lost is passed on.
    let (copied, errors) = tokio::join!(
        pass_on(channel.clone(), stdout(), gone),
        pass_on(channel.stderr(), stderr(), async {}),
    );
    copied.and(errors)?;
    Ok(exit_code(channel.wait().await?))
}

/// Passes on what is read. When the reader of our output is gone, that is told once and the rest is thrown away:
/// the command goes on, and its exit code still counts.
async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    gone: impl Future<Output = ()>,
) -> io::Result<()> {
    let (mut outlet, mut buffer) = (Some((to, gone)), vec![0; 64 * 1024]);
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        if let Some((mut to, gone)) = outlet.take() {
            match write(&mut to, &buffer[..n]).await {
                Ok(()) => outlet = Some((to, gone)),
                Err(_) => gone.await,
            }
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}
