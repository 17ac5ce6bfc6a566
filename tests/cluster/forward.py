#!/usr/bin/env python3
"""forward.py PORT HOST PORT: connections to the one go to the other, until this is killed and all of them break."""

import asyncio
import sys


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main():
    here, host, there = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])

    async def connected(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(host, there)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", here)
    async with server:
        await server.serve_forever()


asyncio.run(main())
