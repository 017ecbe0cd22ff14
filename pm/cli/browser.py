# SPDX-License-Identifier: Apache-2.0
"""``mptcp-pm web``: the page in a browser, on a host where only the Unix socket is served."""

from __future__ import annotations

import argparse
import os
import pwd
import subprocess
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from pm.cli.client import Client, Target
from pm.errors import PmError

LOGIN_UID = Path("/proc/self/loginuid")
NO_LOGIN = 0xFFFFFFFF


def web(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    if options.url:
        raise PmError(
            "`web` asks a service of this host by its Unix socket", f"open {options.url}/ in a browser"
        )
    with closing(Client(Target(options.socket))) as client:
        client.status()  # what is wrong from the start ends the command
    import asyncio

    asyncio.run(_serve(options, invoking_user(os.environ)))
    return 0


async def _serve(options: argparse.Namespace, user: int) -> None:
    import asyncio

    from pm import log
    from pm.api.page_proxy import serve_page

    log.configure(log.Level.WARNING, log.Format.TEXT)
    async with serve_page(options.socket, options.port, {os.geteuid(), user}) as address:
        print(f"Open {address} within a minute; it is good once. Ctrl-C ends.", flush=True)
        if not options.no_browser:
            await asyncio.to_thread(open_browser, address, user, os.environ)
        await asyncio.Event().wait()


def invoking_user(environ: Mapping[str, str]) -> int:
    """Who is at the keyboard: of root's process, who became root by sudo, pkexec or su."""
    if (user := os.geteuid()) != 0:
        return user
    for variable in ("SUDO_UID", "PKEXEC_UID"):
        text = environ.get(variable, "")
        if text.isascii() and text.isdecimal() and int(text) < NO_LOGIN:
            return int(text)
    try:
        login = int(LOGIN_UID.read_text())
    except (OSError, ValueError):  # a kernel without audit
        return user
    return user if login == NO_LOGIN else login


def open_browser(address: str, user: int, environ: Mapping[str, str]) -> None:
    """On a desktop, as the user whose it is. Where that is not possible, the printed address has to do.

    Every user can read the address in the arguments of the browser's process, but cannot connect to it.
    """
    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return
    with suppress(OSError, KeyError):  # there is no xdg-open, or no such user
        other = user if user != os.geteuid() else None
        found = pwd.getpwuid(user)
        own = {"HOME": found.pw_dir, "USER": found.pw_name, "LOGNAME": found.pw_name}
        subprocess.Popen(
            ["xdg-open", address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            user=other,
            group=None if other is None else found.pw_gid,
            extra_groups=None if other is None else os.getgrouplist(found.pw_name, found.pw_gid),
            env=environ if other is None else {**environ, **own, "XDG_RUNTIME_DIR": f"/run/user/{user}"},
        )
