# SPDX-License-Identifier: Apache-2.0
"""From a YAML file to a Config, or to every reason why not."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import Doc

from pm.config.document import parse, path_of
from pm.config.load import Loaded, load_config, load_in_child
from pm.config.model import Config, Datapath, OnExit
from pm.config.validate import validate
from pm.errors import ConfigError, PmError
from pm.path_managers.choice import PathManagerChoice
from pm.path_managers.fullmesh import FullMesh
from pm.path_managers.ndiffports import NDiffPorts
from pm.path_managers.none import NonePathManager
from pm.path_managers.registry import registry
from pm.policies.model import Accept, InterfaceGlob, Keepalive, Policy, Start

ROOT = Path(__file__).parents[3]
BAD = ROOT / "tests/data/config/bad"
GOOD = [ROOT / "config/mptcp-pm.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]


def problems_of(path: Path | str) -> list[str]:
    with pytest.raises(ConfigError) as e:
        load_config(str(path))
    return str(e.value).splitlines()


def load_text(text: str) -> Config:
    return validate(parse("test.yaml", text.encode()))


@pytest.mark.parametrize("name", sorted(p.stem for p in BAD.glob("*.yaml")))
def test_a_bad_file_gives_exactly_the_expected_problems(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every problem at once, in the order of lines, as file:line: path: what is wrong and what is right."""
    monkeypatch.chdir(BAD)
    assert problems_of(f"{name}.yaml") == (BAD / f"{name}.expected").read_text().splitlines()


@pytest.mark.parametrize("path", GOOD, ids=lambda p: p.stem)
def test_reference_and_examples_load(path: Path) -> None:
    """The files that users start from are valid."""
    assert load_config(str(path)).config.policies


def test_every_key_of_the_file_reaches_the_model(tmp_path: Path) -> None:
    """Values, units, prefixes and path manager parameters arrive typed; the digest is that of the bytes."""
    file = tmp_path / "config.yaml"
    file.write_text("""
        datapath: netlink
        policies:
          - name: a
            cgroup: /a
            path_manager: {ndiffports: {subflows: 3}}
            start: {after: 500ms, after_bytes: 64KiB}
            announce: true
            accept: {max_subflows: 8, from: [10.0.0.0/8, 'fd00::/8']}
          - {name: b, cgroup: /b, path_manager: none}
          - {name: c, cgroup: /c, path_manager: {fullmesh: }}
        on_exit: keep
        """)
    a = Policy(
        name="a",
        cgroup="/a",
        path_manager=PathManagerChoice("ndiffports", NDiffPorts.Parameters(subflows=3)),
        start=Start(after=0.5, after_bytes=65536),
        announce=True,
        accept=Accept(
            max_subflows=8, from_=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
        ),
    )
    none = PathManagerChoice("none", NonePathManager.Parameters())
    b = Policy(name="b", cgroup="/b", path_manager=none)
    c = Policy(name="c", cgroup="/c", path_manager=PathManagerChoice("fullmesh", FullMesh.Parameters()))
    expected = Config(datapath=Datapath.NETLINK, policies=(a, b, c), on_exit=OnExit.KEEP)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert load_config(str(file)) == Loaded(expected, digest)


def test_defaults_are_those_of_the_model() -> None:
    """A file that says nothing configures what `Config()` is."""
    assert load_text("policies: []") == Config()
    assert load_text("{}") == Config()


@pytest.mark.parametrize(
    ("text", "keepalive"),
    [
        ("off", None),
        ("'off'", None),
        ("false", None),
        ("{}", Keepalive()),
        ("{idle: 20s}", Keepalive(idle=20, interval=10, count=3)),
    ],
)
def test_keepalive_may_be_off(text: str, keepalive: Keepalive | None) -> None:
    """YAML has two words for it; what a mapping does not name has its default."""
    text = f"policies: [{{name: a, cgroup: /a, path_manager: none, keepalive: {text}}}]"
    assert load_text(text).policies[0].keepalive == keepalive


def test_yaml_dates_are_text() -> None:
    """A name that looks like a date is a name."""
    text = "policies: [{name: 2026-01-01, cgroup: /a, path_manager: none}]"
    assert load_text(text).policies[0].name == "2026-01-01"


def test_tls_lets_the_api_listen_on_any_address() -> None:
    """Beyond loopback, `tls` is what is asked for, and it is enough."""
    text = "api: {tcp: {listen: '[::]:8642', token_file: /t, tls: {cert: /c, key: /k}}}"
    tcp = load_text(text).api.tcp
    assert tcp
    assert tcp.tls


def test_what_is_no_readable_file_is_one_problem(tmp_path: Path) -> None:
    """Missing, a directory, a FIFO, a NUL in the name, too large: one line with the remedy each."""
    fifo, large = tmp_path / "fifo", tmp_path / "large.yaml"
    os.mkfifo(fifo)
    large.write_bytes(b"#" * ((1 << 20) + 1))
    missing = tmp_path / "missing.yaml"
    assert problems_of(missing) == [f"{missing}: does not exist: create it, or name another one"]
    assert problems_of(tmp_path) == [f"{tmp_path}: is a directory: name a YAML file"]
    assert problems_of(fifo) == [f"{fifo}: is not a regular file: name a YAML file"]
    assert problems_of(large) == [f"{large}: is larger than 1 MiB: check that it is a configuration file"]
    assert problems_of("a\0b") == ["a\0b: cannot be read (embedded null byte): name a YAML file"]


@contextmanager
def unprivileged() -> Iterator[None]:
    """As nobody, where the tests run as root, whom no mode stops."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_an_unreadable_file_is_one_problem(tmp_path: Path) -> None:
    """A file one may not read says so, and what to do."""
    file = tmp_path / "secret.yaml"
    file.write_text("policies: []")
    file.chmod(0)
    with unprivileged():
        assert problems_of(file) == [f"{file}: permission denied: run as root, or change its mode"]


def test_a_file_of_very_many_values_is_one_problem() -> None:
    """What would take a gigabyte to report on is refused before anything is built from it."""
    with pytest.raises(ConfigError) as e:
        load_text("policies: [" + "1," * 500_000 + "]")
    assert str(e.value) == "test.yaml:1: is too large: more than 50,000 keys and values"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "api",
                    "tcp",
                    "listen",
                    "policies",
                    "name",
                    "cgroup",
                    "path_manager",
                    "accept",
                    "from",
                    "start",
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def assert_config_or_problems(content: bytes) -> None:
    problems = None
    try:
        validate(parse("fuzz.yaml", content))
    except ConfigError as e:
        problems = e.problems
    if problems is not None:
        assert problems
        assert all(len(str(p).splitlines()) == 1 for p in problems)


@given(json_values)
def test_any_structure_gives_a_config_or_problems(value: Any) -> None:
    """Whatever is well-formed YAML, the loader never fails in another way; each problem is one line."""
    assert_config_or_problems(yaml.safe_dump(value).encode())


@given(st.binary(max_size=60) | st.text("ab:-[]{}&*!|>%@`'\"#,?\n\t ~0", max_size=60).map(str.encode))
def test_any_bytes_give_a_config_or_problems(content: bytes) -> None:
    """Whatever the bytes are, the loader never fails in another way; each problem is one line."""
    assert_config_or_problems(content)


def test_paths_quote_keys_that_are_no_plain_word() -> None:
    """A key with a space or a newline cannot break the line that reports it."""
    assert path_of(("policies", 2, "a\nb", "c")) == r"policies[2].'a\nb'.c"


@pytest.mark.parametrize(
    "text",
    [
        r'{name: a, cgroup: /a, path_manager: "x\n\e[2Jy"}',
        r'{name: a, cgroup: "a\nb", path_manager: none}',
        '{name: "%s", cgroup: /a, path_manager: none}' % ("x y" * 100_000),
        '{name: a, cgroup: /a, path_manager: none, "%s": 1}' % ("x y" * 100_000),
    ],
    ids=["path_manager", "cgroup", "long name", "long key"],
)
def test_what_stands_in_the_file_cannot_break_or_flood_a_message(text: str) -> None:
    """Control characters are escaped and long text is cut: one printable line of bounded length."""
    with pytest.raises(ConfigError) as e:
        load_text(f"policies: [{text}]")
    [problem] = e.value.problems
    assert str(problem).isprintable()
    assert len(str(problem)) < 1000


class Weighted:
    """A third party's path manager, with a required parameter, a rule across two and a nested type."""

    name: ClassVar[str] = "weighted"
    summary: ClassVar[str] = "For tests."

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Parameters:
        weights: Annotated[dict[str, float], Doc("Weight of each interface.")]
        low: int = 1
        high: int = 2
        never: Annotated[tuple[InterfaceGlob, ...], Doc("A list.")] = ()

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError(f"low ({self.low}) is above high ({self.high}): swap them")


@pytest.fixture
def _weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {**registry(), "weighted": Weighted}
    monkeypatch.setattr("pm.path_managers.choice.registry", lambda: known)


@pytest.mark.usefixtures("_weighted")
@pytest.mark.parametrize(
    ("path_manager", "problem"),
    [
        ("weighted", ".weighted.weights: is missing: add `weights:` with a mapping"),
        ("{weighted: {weights: {a: 1.5}, low: 3}}", ".weighted: low (3) is above high (2): swap them"),
        ("{weighted: {weights: {a: x}}}", ".weighted.weights.a: must be a number, not the text 'x'"),
        ("{weighted: {weights: {}, lo: 3}}", ".weighted.lo: unknown key: did you mean `low`?"),
    ],
)
def test_third_party_parameters_are_validated_like_our_own(path_manager: str, problem: str) -> None:
    """Any type pydantic knows, required parameters and rules in `__post_init__` give problems with a path."""
    with pytest.raises(ConfigError) as e:
        load_text(f"policies: [{{name: a, cgroup: /a, path_manager: {path_manager}}}]")
    assert str(e.value) == f"test.yaml:1: policies[0].path_manager{problem}"


@pytest.mark.usefixtures("_weighted")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TypeError("no\nway"), "raised TypeError: no way"),
        (SystemExit(0), "raised SystemExit: 0"),
        (RecursionError(), "raised RecursionError"),
    ],
)
def test_third_party_parameters_that_raise_are_a_problem(
    error: BaseException, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they raise: one problem at each place that names them, and the other problems too."""

    def fail(self: Any) -> None:
        raise error

    monkeypatch.setattr(Weighted.Parameters, "__post_init__", fail)
    chosen = "path_manager: {weighted: {weights: {}}}"
    with pytest.raises(ConfigError) as e:
        load_text(
            f"policies:\n- {{name: a, cgroup: /a, {chosen}}}\n- {{name: a, cgroup: /b, path_manager: none}}"
            f"\n- {{name: c, cgroup: /c, {chosen}}}\n"
        )
    first, second, third = str(e.value).splitlines()
    what = f"path manager weighted: its parameters {words}: correct them, or report it to its author"
    assert first == f"test.yaml:2: policies[0].path_manager.weighted: {what}"
    assert second.startswith("test.yaml:3: policies[1].name: 'a' is already used")
    assert third == f"test.yaml:4: policies[2].path_manager.weighted: {what}"


async def test_third_party_parameters_that_cannot_be_pickled_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` says what the service says, which gets them from the loader's process."""
    install_in(tmp_path, "unfit", "pass", "lock: Any = field(default_factory=Lock)")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text("policies:\n- {name: a, cgroup: /a, path_manager: unfit}\n")
    with pytest.raises(ConfigError) as e:
        await load_in_child(str(file))
    assert str(e.value) == (
        f"{file}:2: policies[0].path_manager.unfit: path manager unfit: its parameters cannot be handed "
        "to the service (raised TypeError: cannot pickle '_thread.lock' object): report it to its author"
    )
    check = [sys.executable, "-m", "pm.cli.main", "check", str(file)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = await asyncio.to_thread(subprocess.run, check, capture_output=True, text=True, env=environment)
    assert run.stderr.strip() == str(e.value)


async def test_third_party_parameters_that_never_end_are_named_as_a_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader's process is ended, and the message says where to look."""
    install_in(tmp_path, "endless", "while True: pass")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("pm.config.load.CHILD_TIMEOUT_S", 2.0)
    file = tmp_path / "config.yaml"
    file.write_text("policies:\n- {name: a, cgroup: /a, path_manager: endless}\n")
    with pytest.raises(
        PmError, match=r"took longer than 2 s: .* third parties' path managers: the code of th"
    ):
        await load_in_child(str(file))


def install_in(path: Path, name: str, post_init: str, field: str = "pass") -> None:
    """A package with a path manager whose parameters have this field, and run this when they are made."""
    info = path / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[mptcp_pm.path_managers]\n{name} = {name}_module:X\n")
    (path / f"{name}_module.py").write_text(
        "from dataclasses import dataclass, field\n"
        "from threading import Lock\n"
        "from typing import Any\n"
        "class X:\n"
        f"    name, summary = '{name}', ''\n"
        "    @dataclass(frozen=True)\n"
        "    class Parameters:\n"
        f"        {field}\n"
        "        def __post_init__(self):\n"
        f"            {post_init}\n"
        "    wanted = staticmethod(lambda session, addresses, parameters: {})\n"
    )


@pytest.mark.usefixtures("_weighted")
def test_third_party_parameters_can_be_lists() -> None:
    """Declared as tuples, like those of the package's own models, which authors copy."""
    text = "{weighted: {weights: {}, never: [tun*, wg0]}}"
    (policy,) = load_text(f"policies: [{{name: a, cgroup: /a, path_manager: {text}}}]").policies
    assert policy.path_manager.parameters.never == ("tun*", "wg0")
    with pytest.raises(ConfigError, match="must be a list"):
        load_text(f"policies: [{{name: a, cgroup: /a, path_manager: {text.replace('[tun*, wg0]', 'tun')}}}]")


async def test_a_child_gives_the_same_configuration() -> None:
    """`load_in_child` returns what `load_config` returns."""
    file = str(GOOD[0])
    assert await load_in_child(file) == await asyncio.to_thread(load_config, file)


async def test_a_child_gives_the_same_problems() -> None:
    """A ConfigError in the child is the same ConfigError here."""
    file = str(BAD / "options.yaml")  # names no path managers: the child sees all that are installed
    with pytest.raises(ConfigError) as e:
        await load_in_child(file)
    assert str(e.value).splitlines() == await asyncio.to_thread(problems_of, file)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("raise SystemError('boom')", "status 1 (SystemError: boom)"),
    ],
)
async def test_a_child_that_dies_is_a_clear_error(
    code: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in the child is a PmError that names it, no traceback."""
    (tmp_path / "pydantic.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PmError) as e:
        await load_in_child(str(GOOD[0]))
    assert str(e.value).startswith(f"the configuration loader ended with {how}")
    assert not isinstance(e.value, ConfigError)


async def test_a_path_manager_that_cannot_be_loaded_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken third-party package is a problem of the policies that name it, and of no others."""
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mptcp_pm.path_managers]\nbroken = no_such_module:X\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert (await load_in_child(str(GOOD[0]))).config.policies
    file = tmp_path / "config.yaml"
    file.write_text("policies:\n- {name: a, cgroup: /a, path_manager: broken}\n")
    with pytest.raises(ConfigError, match=r"yaml:2: .*: path manager `broken` cannot be used: broken 1: can"):
        await load_in_child(str(file))


def test_loading_in_a_child_leaves_pydantic_and_yaml_out_of_this_process() -> None:
    """The service's memory budget: neither the validator nor the parser is ever imported here."""
    code = (
        "import asyncio, sys; from pm.config.load import load_in_child;"
        "assert asyncio.run(load_in_child(sys.argv[1])).config.policies;"
        "sys.exit(not {'pydantic', 'pydantic_core', 'yaml'}.isdisjoint(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(GOOD[0])], check=True, env=environment)
