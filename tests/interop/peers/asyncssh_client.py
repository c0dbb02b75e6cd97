"""An SSH client made of asyncssh that runs one command."""

import asyncio
import signal
import sys

import asyncssh
import common


def connect(args):
    """Connect, check the host key and authenticate."""
    settings = {
        "kex_algs": args.kex,
        "encryption_algs": args.ciphers,
        "mac_algs": args.macs,
        "server_host_key_algs": args.host_key_algs,
        "rekey_bytes": args.rekey_bytes,
        "signature_algs": [args.key_alg] if args.key_alg else None,
    }
    if args.key:
        settings.update(client_keys=[args.key], preferred_auth="publickey")
    else:
        settings.update(password=args.password, preferred_auth="password")
    return asyncssh.connect(
        "127.0.0.1",
        args.port,
        username=args.user,
        config=None,
        agent_path=None,
        known_hosts=([asyncssh.read_public_key(args.known_host)], [], []),
        connect_timeout=30,
        **{name: value for name, value in settings.items() if value},
    )


async def pump_in(path, writer):
    """Send a file as the command's input."""
    try:
        with open(path, "rb") as file:
            while data := file.read(common.CHUNK):
                writer.write(data)
                await writer.drain()
        writer.write_eof()
    except (OSError, asyncssh.Error):
        pass  # The command ended without reading it all.


async def pump_out(reader, path):
    """Store one of the command's outputs."""
    with open(path, "wb") as file:
        while data := await reader.read(common.CHUNK):
            file.write(data)


async def run(connection, args):
    """Run the command and return its exit code."""
    process = await connection.create_process(args.command, encoding=None)
    feeder = asyncio.create_task(pump_in(args.stdin, process.stdin))
    await asyncio.gather(
        pump_out(process.stdout, args.stdout),
        pump_out(process.stderr, args.stderr),
    )
    await process.wait_closed()
    feeder.cancel()
    if process.exit_signal:
        return 128 + signal.Signals["SIG" + process.exit_signal[0]]
    if process.exit_status is None or process.exit_status < 0:
        common.fail(common.CODE_OTHER_FAILURE, "the channel closed without a status")
    return process.exit_status


async def main():
    """Run one command over one connection."""
    args = common.client_arguments()
    try:
        async with connect(args) as connection:
            return await run(connection, args)
    except asyncssh.PermissionDenied as error:
        common.fail(common.CODE_AUTH_FAILED, error)
    except (asyncssh.Error, OSError) as error:
        common.fail(common.CODE_OTHER_FAILURE, repr(error))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
