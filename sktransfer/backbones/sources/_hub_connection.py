"""Whether the Hugging Face Hub can be reached: told in seconds, before its library tries again and again.

A connection is opened to the door of the hub, or of the proxy in front of it, and closed. Looking up the name and
connecting together end after `WAITS` seconds, or after those of HF_HUB_ETAG_TIMEOUT where a person has set more. A
connection that can be opened is then used as slowly as it works: waits for answers are the library's own. What was
found holds for `HOLDS` seconds, as a model has many files.
"""

import errno
import os
import selectors
import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from sktransfer._process import _private_names
from sktransfer._process._workers import within

WAITS = 1.25
HOLDS = 10.0

_PORTS = {"http": 80, "https": 443}
_PORT_OF_SOCKS = 1080

# What a connection answers that has yet to be opened.
_UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK))

# By door: when it was tried, and why it did not open.
_TRIED: dict[tuple[str, int], tuple[float, str | None]] = {}
# By endpoint: when it last answered.
_ANSWERED: dict[str, float] = {}


def why_unreachable() -> str | None:
    """Say why no connection to the hub can be opened.

    Returns
    -------
    str or None
        A clause; `None` where one was opened, or where somebody has set how the hub is asked.
    """
    from huggingface_hub import constants

    if _private_names.hub_is_asked_otherwise():
        return None
    door = _door(constants.ENDPOINT)
    when, why = _TRIED.get(door, (-HOLDS, None))
    if time.monotonic() - when >= HOLDS:
        why = _try_to_open(*door)
        _TRIED[door] = time.monotonic(), why
    return why


def has_answered() -> bool:
    """Tell whether the hub has answered in the last `HOLDS` seconds.

    Returns
    -------
    bool
        Whether it has.
    """
    from huggingface_hub import constants

    return time.monotonic() - _ANSWERED.get(constants.ENDPOINT, -HOLDS) < HOLDS


def note_answer() -> None:
    """Note that the hub has answered just now."""
    from huggingface_hub import constants

    _ANSWERED[constants.ENDPOINT] = time.monotonic()


def _try_to_open(host: str, port: int) -> str | None:
    seconds = _patience()
    try:
        # In a thread, as the look-up of a name has an end of its own.
        within(seconds, lambda: _open_one_of(host, port, seconds), name="sktransfer-hub")
    except TimeoutError:
        return (
            f"no connection to {host}:{port} within {seconds:g} s; on a slow network set HF_HUB_ETAG_TIMEOUT to more "
            "seconds"
        )
    except (OSError, UnicodeError) as error:  # refused, no such host, no route, not a name
        return f"no connection to {host}:{port}: {getattr(error, 'strerror', None) or error}"
    return None


def _open_one_of(host: str, port: int, seconds: float) -> None:
    """Open a connection to whichever address of a host answers first; one that answers nothing keeps from no other."""
    ends = time.monotonic() + seconds
    failed: OSError = TimeoutError(errno.ETIMEDOUT, "timed out")
    with ExitStack() as opened:
        waiting = opened.enter_context(selectors.DefaultSelector())
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            one = opened.enter_context(socket.socket(family, kind, protocol))
            one.setblocking(False)
            code = one.connect_ex(address)
            if code == 0:
                return
            if code in _UNDER_WAY:
                waiting.register(one, selectors.EVENT_WRITE)
            else:
                failed = OSError(code, os.strerror(code))
        while waiting.get_map() and (left := ends - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                code = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # type: ignore[union-attr]
                if code == 0:
                    return
                failed = OSError(code, os.strerror(code))
                waiting.unregister(key.fileobj)
        raise TimeoutError(errno.ETIMEDOUT, "timed out") if waiting.get_map() else failed


def _patience() -> float:
    try:
        return max(WAITS, float(os.environ.get("HF_HUB_ETAG_TIMEOUT", "")))
    except ValueError:
        return WAITS


def _door(endpoint: str) -> tuple[str, int]:
    """Return host and port of what has to answer: the proxy for an address, or the address."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(host):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    default = _PORTS.get(parts.scheme, _PORT_OF_SOCKS)
    try:
        return parts.hostname or "", parts.port or default
    except ValueError:  # no number
        return parts.hostname or "", default
