# SPDX-License-Identifier: Apache-2.0
"""Commands that need no running service. Each imports what it alone needs, since much is slow to import."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pm.errors import ConfigError, SystemUnfit
from pm.names import printable


def run(options: argparse.Namespace) -> int:
    from pm.linux.host.netns import has_interfaces
    from pm.log_output import secure_standard_descriptors
    from pm.reading import Reading

    secure_standard_descriptors()
    # Asked early: an application that ends meanwhile takes its interfaces with it.
    had_interfaces = has_interfaces()
    # A child reads the file meanwhile: the imports below take as long.
    reading = Reading.begin(Path(options.config))
    with _only_what_a_server_needs():
        from pm.process import run as run_process
        from pm.starting import Settings

    settings = Settings(
        reading=reading,
        had_interfaces=had_interfaces,
        state_directory=Path(options.state_directory),
        cgroup_root=Path(options.cgroup_root) if options.cgroup_root else None,
        alone_exit_s=options.alone_exit,
    )
    return run_process(settings, log_level=options.log_level, log_format=options.log_format)


@contextmanager
def _only_what_a_server_needs() -> Iterator[None]:
    """Without CA certificates, which aiohttp loads for clients (2 MiB, 40 ms), and libstdc++ (1 MiB)."""
    wanted = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull, "FROZENLIST_NO_EXTENSIONS": "1"}
    before = {name: os.environ[name] for name in wanted if name in os.environ}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update(before)


def restore(options: argparse.Namespace) -> int:
    """Undo what a service that was killed left changed; nothing where one lives."""
    from pm.linux.bpf.pins import pin_directory
    from pm.linux.bpf.sweep import remove_left, sweep
    from pm.linux.host.instance import AlreadyRunning, Instance
    from pm.linux.host.mounts import find_mount
    from pm.linux.host.netns import netns_cookie
    from pm.linux.host.sysctl import PathManagerSysctl

    bpffs = find_mount("bpf")
    pins = pin_directory(bpffs, netns_cookie()) if bpffs else None
    restored: list[str] = []
    reason = "nothing is left that a service has changed"
    try:
        # Its lock: while this holds it no service can start, and one that lives is left alone.
        with Instance(pins):
            if setting := PathManagerSysctl(Path(options.state_directory)).restore_left():
                restored.append(setting)
        if pins and remove_left(pins):  # takes the lock itself
            restored.append(f"programs in {pins}")
    except AlreadyRunning as e:
        reason = e.message
    restored += [f"programs in {swept}" for swept in (sweep(pins.parent) if pins else ())]
    if options.json:
        found = {"restored": restored, "reason": None if restored else reason}
        print(json.dumps(found, ensure_ascii=False))
    else:
        print(*(f"set back or removed: {what}" for what in restored), sep="\n", end="\n" if restored else "")
        if not restored:
            print(f"nothing was changed: {reason}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Print every problem of configurations, and warnings. Exit status 1 for a problem."""
    results = [_check(file, options) for file in options.file]
    ok = all(result["ok"] for result in results)
    if options.json:
        print_json(results[0] if len(results) == 1 else {"ok": ok, "files": results})
    return 0 if ok else ConfigError.exit_status


def _check(file: str, options: argparse.Namespace) -> dict[str, Any]:
    """What ``check --json`` prints of one file; without --json, it is printed for people at once."""
    from pm.config.document import read_opened
    from pm.config.load import load_content
    from pm.path_managers.program import Program

    file = "/dev/stdin" if file == "-" else file
    left_out: list[str] = []
    try:
        loaded, document = load_content(file, read_opened(file))
        policies = loaded.config.policies
        if any(p.options.plugins or p.path_manager.name == Program.name for p in policies):
            from pm.cli.source_check import check_sources

            left_out = check_sources(loaded.config, file)
    except ConfigError as e:
        if not options.json:
            print(*map(printable, map(str, e.problems)), sep="\n", file=sys.stderr)
        problems = [asdict(problem) for problem in e.problems]
        return {"file": file, "ok": False, "problems": problems, "warnings": []}
    warnings = list(loaded.warnings)
    if options.here:
        from pm.cli.here import findings

        warnings += findings(document, loaded.config)
    ok = not (options.strict and warnings)
    if not options.json:
        word = "warning" if ok else "error"
        for warning in warnings:
            print(printable(str(replace(warning, message=f"{word}: {warning.message}"))), file=sys.stderr)
        if ok:
            counts = [_count(len(policies), "policy", "policies")]
            counts += [_count(len(warnings), "warning", "warnings")] if warnings else []
            print(printable(f"{file}: valid, {', '.join(counts)}"))
        for what in left_out:
            print(printable(f"not checked: {what}"))
    listed = [asdict(warning) for warning in warnings]
    found = {"file": file, "ok": ok, "problems": [], "warnings": listed, "not_checked": left_out}
    return {**found, "digest": loaded.digest}


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def doctor(options: argparse.Namespace) -> int:
    """Print every check of this system. Exit status 3 if a required one fails."""
    from pm.cli.doctor import examine

    root = Path(options.cgroup_root) if options.cgroup_root else None
    checks = [asdict(check) for check in examine(root, options.to)]
    if options.json:
        print_json({"checks": checks})
    else:
        from pm.cli.tables import checks_table, console

        console().print(checks_table(checks))
    unfit = any(c["required"] and not c["ok"] for c in checks)
    return SystemUnfit.exit_status if unfit else 0


def report(options: argparse.Namespace) -> int:
    from pm.cli.report import write_report

    return write_report(options)


def schema(options: argparse.Namespace) -> int:
    from pm.config.schema import json_schema, undescribed
    from pm.path_managers.choice import usable

    known = usable()
    for name, why in undescribed(known).items():
        print(f"path manager {name} is left out: its parameters cannot be described ({why})", file=sys.stderr)
        del known[name]
    print_json(json_schema(known))
    return 0
