# SPDX-License-Identifier: Apache-2.0
"""Files that the service writes are not those that it reads, by whatever name."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
import yaml

from pm.config.load import load_config
from pm.errors import ConfigError

PURPOSES = {
    "config.yaml": "the configuration",
    "token": "the token file",
    "cert.pem": "the certificate",
    "key.pem": "the private key",
    "api.sock": "the socket",
}


def write(directory: Path, *, records: str | None = None, unix: str | None = None, to: str = "file") -> Path:
    for name in ("token", "cert.pem", "key.pem"):
        (directory / name).write_text("x")
    tls = {"cert": str(directory / "cert.pem"), "key": str(directory / "key.pem")}
    tcp = {"listen": "0.0.0.0:8642", "token_file": str(directory / "token"), "tls": tls}
    document = {
        "api": {"unix": unix or str(directory / "api.sock"), "tcp": tcp},
        "records": {"to": to, "path": records or str(directory / "records")},
    }
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as e:
        load_config(str(path))
    return [f"{problem.path}: {problem.message}" for problem in e.value.problems]


@pytest.mark.parametrize("name", PURPOSES)
def test_records_replace_nothing(tmp_path: Path, name: str) -> None:
    """The message says what the file is for."""
    path = str(tmp_path / name)
    said = f"records.path: {path} is {PURPOSES[name]}: records would replace it, name another file"
    assert said in problems(write(tmp_path, records=path))


@pytest.mark.parametrize("name", ["config.yaml", "token", "cert.pem", "key.pem"])
def test_the_socket_replaces_nothing(tmp_path: Path, name: str) -> None:
    """Nor does it."""
    path = str(tmp_path / name)
    said = f"api.unix: {path} is {PURPOSES[name]}: the socket would replace it, name another file"
    assert said in problems(write(tmp_path, unix=path))


@pytest.mark.parametrize("how", ["dots", "symlink", "hard link", "directory", "former"])
def test_by_another_name(tmp_path: Path, how: str) -> None:
    """Of the file, or of a directory above; and where the former records would be."""
    write(tmp_path)
    other = tmp_path / "other"
    match how:
        case "dots":
            (tmp_path / "a").mkdir()
            other = tmp_path / "a" / ".." / "token"
        case "symlink":
            other.symlink_to(tmp_path / "token")
        case "hard link":
            os.link(tmp_path / "token", other)
        case "directory":
            other.symlink_to(tmp_path)
            other = other / "token"
        case "former":
            os.rename(tmp_path / "token", tmp_path / "token.1")
            (tmp_path / "token").symlink_to(tmp_path / "token.1")
            other = tmp_path / "x"
            (tmp_path / "x.1").symlink_to(tmp_path / "token.1")
    path = write(tmp_path, records=str(other)) if how != "former" else tmp_path / "config.yaml"
    if how == "former":
        text = path.read_text().replace(str(tmp_path / "records"), str(other))
        path.write_text(text)
    (found,) = problems(path)
    assert "is the token file" in found


@pytest.mark.parametrize("what", ["source of a plug-in", "source of a path manager"])
def test_records_replace_no_source(tmp_path: Path, what: str) -> None:
    """A C file of a policy is a purpose too."""
    source = tmp_path / "x.c"
    source.write_text("int x;")
    path = write(tmp_path, records=str(source))
    document = yaml.safe_load(path.read_text())
    plugin = {"name": "x", "source": str(source), "exid": 0x4D01, "send": True}
    own = (
        {"path_manager": "none", "options": {"plugins": [plugin]}}
        if "plug-in" in what
        else {"path_manager": {"program": {"name": "x", "source": str(source)}}}
    )
    document["policies"] = [{"name": "web", "cgroup": "/web", **own}]
    path.write_text(yaml.safe_dump(document))
    (found,) = problems(path)
    assert re.search(r"is the (plug-in|path manager) of policy `web`: records would replace it", found)


@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize("what", ["directory", "FIFO", "socket", "device", "symbolic link"])
def test_records_need_a_regular_file(tmp_path: Path, what: str, former: bool) -> None:
    """Before the service starts, not at the end of the first session; at the first rotation neither."""
    path = tmp_path / "records"
    there = tmp_path / "records.1" if former else path
    match what:
        case "directory":
            there.mkdir()
        case "FIFO":
            os.mkfifo(there)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(there))
        case "device":
            path = Path("/dev/null")
            if former:
                return
        case "symbolic link":
            there.symlink_to(tmp_path / "nothing")
            if former:  # a rename takes its place
                load_config(str(write(tmp_path, records=str(path))))
                return
    (found,) = problems(write(tmp_path, records=str(path)))
    assert f"is a {what}: records need a file of their own, name another" in found


@pytest.mark.parametrize("name", ["config.yaml", "cert.pem", "key.pem"])
def test_a_token_is_no_line_that_others_know(tmp_path: Path, name: str) -> None:
    """That of a private key is `-----BEGIN PRIVATE KEY-----`."""
    path = write(tmp_path)
    path.write_text(path.read_text().replace(str(tmp_path / "token"), str(tmp_path / name)))
    (found,) = problems(path)
    purpose = f"{tmp_path / name} is {PURPOSES[name]}"
    assert found == f"api.tcp.token_file: {purpose}: its first line is no secret, name another file"


def test_certificate_and_key_in_one_file(tmp_path: Path) -> None:
    """Nothing is written there, and it is as usual."""
    path = write(tmp_path)
    path.write_text(path.read_text().replace(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")))
    load_config(str(path))


def test_what_is_not_written_is_no_matter(tmp_path: Path) -> None:
    """Records to elsewhere have a path that means nothing; different files are as they should be."""
    load_config(str(write(tmp_path)))
    load_config(str(write(tmp_path, records=str(tmp_path / "token"), to="stdout")))
