"""Whether a page can be served under an address, told before anything slow is loaded."""

import errno
import re
import socket

from ..errors import StudyError, named, short

LOCAL = "127.0.0.1"  # Gradio wants the port free here too, whatever the host
SIZE = re.compile(r"0*[1-9]\d* ?[kmgt]?b", re.I)


def check_address(host: str, port: int) -> None:
    """StudyError unless this machine can listen at `port` of `host`."""
    if type(port) is not int or not 1 <= port <= 65535:
        raise StudyError(f"A port is a whole number from 1 to 65535, not {named(port)}.")
    for name in dict.fromkeys((host, LOCAL)):
        try:
            family, kind, _, _, place = _found(name, port)
            with socket.socket(family, kind) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(place)
        except OSError as error:
            raise _unusable(name, port, error) from error


def check_size(limit: str) -> None:
    """StudyError unless `limit` is a size such as "20mb"."""
    if not (isinstance(limit, str) and SIZE.fullmatch(limit)):
        raise StudyError(
            f"The upload limit is a whole number with b, kb, mb, gb or tb, as in 20mb, "
            f"not {short(limit)}."
        )


def _found(host: str, port: int) -> tuple:
    """The first of the socket addresses that `host` names."""
    try:
        return socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise StudyError(
            f"There is no host named {short(host)}; give 127.0.0.1 for this machine alone, or "
            "0.0.0.0 to let others in."
        ) from error


def _unusable(host: str, port: int, error: OSError) -> StudyError:
    if error.errno == errno.EADDRINUSE:
        return StudyError(f"Port {port} of {host} is in use already; give another with --port.")
    if error.errno == errno.EADDRNOTAVAIL:
        return StudyError(
            f"{host} is no address of this machine; give 127.0.0.1 for this machine alone, or "
            "0.0.0.0 to let others in."
        )
    why = (error.strerror or type(error).__name__).lower()
    return StudyError(f"Port {port} of {host} cannot be opened ({why}); give another with --port.")
