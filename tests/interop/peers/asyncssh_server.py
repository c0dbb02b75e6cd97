"""An SSH server made of asyncssh that runs commands through /bin/sh."""

import asyncio
import signal

import asyncssh
import common


class Server(asyncssh.SSHServer):
    """One user, who has a password; asyncssh itself checks the keys."""

    def __init__(self, args):
        self.args = args

    def begin_auth(self, username):
        return True

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        return (username, password) == (self.args.user, self.args.password)


async def pump(reader, writer):
    """Copy one stream to its end; a reader that went away ends it too."""
    try:
        while data := await reader.read(common.CHUNK):
            writer.write(data)
            await writer.drain()
    except (OSError, asyncssh.Error):
        pass


async def pump_in(source, process):
    """Feed the process until the client ends its input."""
    await pump(source, process.stdin)
    process.stdin.close()
    try:
        while await source.read(common.CHUNK):
            pass
    except (OSError, asyncssh.Error):
        pass


async def run(session):
    """Run one command and report how it ended."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        session.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    feeder = asyncio.create_task(pump_in(session.stdin, process))
    await asyncio.gather(
        pump(process.stdout, session.stdout),
        pump(process.stderr, session.stderr),
    )
    code = await process.wait()
    feeder.cancel()
    session.stdout.write_eof()
    if code < 0:
        name = signal.Signals(-code).name.removeprefix("SIG")
        session.exit_with_signal(name)
    else:
        session.exit(code)


def server_options(args):
    """Translate the command line."""
    settings = {
        "kex_algs": args.kex,
        "encryption_algs": args.ciphers,
        "mac_algs": args.macs,
        "rekey_bytes": args.rekey_bytes,
    }
    options = asyncssh.SSHServerConnectionOptions(
        server_factory=lambda: Server(args),
        server_host_keys=args.host_key,
        authorized_client_keys=args.authorized_keys,
        process_factory=run,
        encoding=None,
        compression_algs=None,
        **{name: value for name, value in settings.items() if value},
    )
    # There is no setting for this one: a server offers all that its keys can.
    if args.host_key_algs:
        for name in list(options.server_host_keys):
            if name.decode() not in args.host_key_algs:
                del options.server_host_keys[name]
    return options


async def main():
    """Listen until killed."""
    args = common.server_arguments()
    listener = await asyncssh.listen("127.0.0.1", 0, options=server_options(args))
    common.announce(listener.get_port())
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
