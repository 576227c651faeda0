"""How surely one request is answered: an alarm's over two connections where one does not do, a batch's once more.

An id on both makes the second a duplicate at worst. Limits: those of the caller for the whole of it; a second connection
for an alarm after `hedge_s`, or at once where the first breaks.
"""

from __future__ import annotations

import asyncio

from gateway.errors import SessionError
from gateway.uplinks.http_lines import Answer, Ask, Lines, NoAnswer


async def asked_twice(lines: Lines, ask: Ask, *, until: float) -> Answer:
    """Ask, and once more over a fresh connection if the first one breaks: the server may have closed it idle.

    `until` is on the loop's clock. Raises SessionError.
    """
    time = asyncio.get_running_loop().time
    try:
        return await lines.ask(ask, limit_s=until - time())
    except SessionError as error:
        if not _broke(error):
            raise
    return await lines.ask(ask, limit_s=until - time(), fresh=True)


async def asked_surely(lines: Lines, ask: Ask, *, until: float, hedge_s: float) -> Answer:
    """Ask over the warm line; if it breaks or is slow, over a fresh one, too. The first answer counts.

    `until` is on the loop's clock. Raises SessionError: what befell the last of them.
    """
    loop = asyncio.get_running_loop()

    def start(*, fresh: bool) -> asyncio.Task[Answer]:
        asking = lines.ask(ask, limit_s=until - loop.time(), fresh=fresh)
        return loop.create_task(asking, name="http-ask")

    tasks = [start(fresh=False)]
    try:
        await asyncio.wait(tasks, timeout=hedge_s)
        if not tasks[0].done() or _broke(tasks[0].exception()):
            tasks.append(start(fresh=True))
        while True:
            await asyncio.wait([one for one in tasks if not one.done()] or tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = [one for one in tasks if one.done()]
            answered = [one for one in ended if one.exception() is None]
            if answered or len(ended) == len(tasks):
                return (answered or tasks[-1:])[0].result()
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _broke(error: BaseException | None) -> bool:
    return isinstance(error, SessionError) and error.code == "GW-NET-05" and not isinstance(error, NoAnswer)
