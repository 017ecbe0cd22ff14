# SPDX-License-Identifier: Apache-2.0
"""A YAML file as plain data that knows the line of each of its parts.

A configuration needs only the part of YAML that JSON has too: mappings with text as keys, lists
and scalars. Everything else (aliases, merges, tags, several documents) is reported with its line.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from pm.errors import ConfigError, Problem
from pm.names import valid_text

Loc = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_PARTS = 50_000  # thousands of policies; reporting on more of them would take a gigabyte
MAX_MESSAGE = 400
MAX_DEPTH = 32  # far more than any configuration needs, far less than the interpreter's stack

_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What looks like a space, or like nothing, and comes with text that is copied from a page.
_NO_BLANK = re.compile(r"[\xa0\u1680\u2000-\u200b\u202f\u205f\u3000\ufeff]")
_OPENED = re.compile(r"/dev/stdin|/dev/fd/(\d{1,9})")
_PLAIN_NAME = re.compile(r"[\w.+-]+")
_ALIAS_REMEDY = "put a glob that starts with `*` in quotes ('*'); YAML aliases are not supported"


class Source(NamedTuple):
    """Where a value is: its 1-based line, and its text if it is a scalar."""

    line: int
    text: str


@dataclass(slots=True)
class Document:
    """A parsed file: ``data`` consists of JSON's types only.

    ``problems`` are those found while parsing; ``unusable`` are the places among them that have no
    value in ``data``.
    """

    file: str
    data: Any = None
    sources: dict[Loc, Source] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unusable: set[Loc] = field(default_factory=set)

    def report(self, loc: Loc, message: str, line: int = 0) -> None:
        """Add a problem; without ``line``, on that of the place or of the nearest place around it."""
        self.problems.append(Problem(self.file, line or self.line_of(loc), path_of(loc), one_line(message)))

    def line_of(self, loc: Loc) -> int:
        """The 1-based line of a place, or of the nearest known place around it."""
        while loc and loc not in self.sources:
            loc = loc[:-1]
        return self.sources[loc].line if loc in self.sources else 1


def path_of(loc: Loc) -> str:
    """Write a place as ``policies[2].path_manager.fullmesh``; keys that are not plain words are quoted."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += "." * bool(path) + one_line(part if _PLAIN_NAME.fullmatch(part) else repr(part))
    return path


def one_line(text: str) -> str:
    """Make text from a user's file fit for a message: printable and of bounded length."""
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:MAX_MESSAGE])
    return printable if len(text) <= MAX_MESSAGE else f"{printable}..."


def read_bytes(file: str) -> bytes:
    """The content of a configuration file. Raises ConfigError if it cannot be read."""
    try:
        # Non-blocking: opening a FIFO without a writer would hang.
        with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as f:
            if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
                raise _fatal(file, "is not a regular file: name a YAML file")
            return _of_bounded_size(file, f.read(MAX_BYTES + 1))
    except IsADirectoryError:
        raise _fatal(file, "is a directory: name a YAML file") from None
    except FileNotFoundError:
        raise _fatal(file, "does not exist: create it, or name another one") from None
    except PermissionError:
        raise _fatal(file, "permission denied: run as root, or change its mode") from None
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else e
        raise _fatal(file, f"cannot be read ({reason}): name a YAML file") from e


def read_opened(file: str) -> bytes:
    """``read_bytes``, also of what is open already: ``/dev/stdin``, ``/dev/fd/N`` (a shell's ``<(...)``)."""
    opened = _OPENED.fullmatch(file)
    if not opened:
        return read_bytes(file)
    try:
        with open(int(opened[1] or 0), "rb", closefd=False) as f:
            return _of_bounded_size(file, f.read(MAX_BYTES + 1))
    except OSError as e:
        raise _fatal(file, f"cannot be read ({e.strerror}): name a YAML file") from e


def _of_bounded_size(file: str, content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise _fatal(file, "is larger than 1 MiB: check that it is a configuration file")
    return content


def parse(file: str, content: bytes) -> Document:
    """Parse the one YAML document in ``content``. Raises ConfigError if it cannot be parsed at all."""
    text = decode(file, content)
    try:
        _refuse_bombs(file, text)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as e:
        raise _syntax_error(file, text, e) from e
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        raise _fatal(file, "is empty: write at least `policies: []`")
    document = Document(file)
    document.data = _convert(document, node, (), _line(node))
    return document


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # libyaml is optional
    # Dates are plain text here.
    yaml_implicit_resolvers = {  # noqa: RUF012 # as in the base class
        first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _fatal(file: str, message: str, line: int = 0) -> ConfigError:
    return ConfigError([Problem(file, line, "", message)])


def _line(part: yaml.Node | yaml.Event) -> int:
    return int(part.start_mark.line) + 1 if part.start_mark else 1


def decode(file: str, content: bytes) -> str:
    """The text of a YAML file, without a byte order mark. Raises ConfigError where it cannot be one."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = e.object.count(b"\n", 0, e.start) + 1
        byte = e.object[e.start]
        raise _fatal(file, f"is not UTF-8 (byte 0x{byte:02x}): save it as UTF-8", line) from e
    if bad := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise _fatal(file, f"contains the control character U+{ord(bad[0]):04X}: remove it", line)
    return text


def _refuse_bombs(file: str, text: str) -> None:
    """Check the stream of parser events before anything is built from it."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        line = _line(event)
        if count > MAX_PARTS:
            raise _fatal(file, f"is too large: more than {MAX_PARTS:,} keys and values", line)
        if isinstance(event, yaml.AliasEvent):
            raise _fatal(file, f"`*{event.anchor}` is a YAML alias: {_ALIAS_REMEDY}", line)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _fatal(file, "a second YAML document starts here: keep one and remove `---`", line)
        elif isinstance(event, yaml.ScalarEvent):
            if valid_text(event.value) != event.value:
                raise _fatal(file, "contains a surrogate (`\\ud800` to `\\udfff`): write the character", line)
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _fatal(file, f"is nested more than {MAX_DEPTH} levels deep: remove some levels", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax_error(file: str, text: str, error: yaml.YAMLError) -> ConfigError:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return _fatal(file, f"is not valid YAML: {' '.join(str(error).split())}")
    mark, context = error.problem_mark, error.context or ""
    found = text.splitlines()[mark.line : mark.line + 1]
    line = mark.line + 1
    if "alias" in context:
        return _fatal(file, f"`*` starts a YAML alias: {_ALIAS_REMEDY}", line)
    if found and found[0][mark.column : mark.column + 1] == "\t":
        return _fatal(file, "a tab cannot indent YAML: use spaces", line)
    # YAML may notice it on the line after.
    first = max((error.context_mark or mark).line - 1, 0)
    for number, at in enumerate(text.splitlines()[first : mark.line + 1], first + 1):
        if blank := _NO_BLANK.search(at.partition(" #")[0]):
            name = unicodedata.name(blank[0], "a character").lower()
            return _fatal(file, f"U+{ord(blank[0]):04X} ({name}) is not a space: type one instead", number)
    if "mapping values" in (error.problem or ""):
        remedy = "check the indentation, and put text that contains `: ` in quotes"
        return _fatal(file, f"a `key: value` pair cannot be here: {remedy}", line)
    message = " ".join(f"{context}: {error.problem}".split()).removeprefix(": ")
    if error.context_mark and error.context_mark.line != mark.line:
        message += f" (it starts on line {error.context_mark.line + 1})"
    return _fatal(file, f"is not valid YAML: {message}: check quotes, brackets and indentation", line)


def _convert(document: Document, node: yaml.Node, loc: Loc, line: int) -> Any:
    document.sources[loc] = Source(line, node.value if isinstance(node, yaml.ScalarNode) else "")
    match node.tag.removeprefix("tag:yaml.org,2002:"), node:
        case "map", yaml.MappingNode():
            return _convert_mapping(document, node, loc)
        case "seq", yaml.SequenceNode():
            return [_convert(document, item, (*loc, i), _line(item)) for i, item in enumerate(node.value)]
        case "str", yaml.ScalarNode():
            return node.value
        case "null" | "bool" | "int" | "float", yaml.ScalarNode() if len(node.value) <= 32:
            try:
                return yaml.constructor.SafeConstructor().construct_object(node)
            except (ValueError, KeyError):
                pass  # an explicit tag that does not fit the text
    what = f"has the YAML tag `{node.tag}`" if node.tag.startswith(("!", "tag:")) else "is not plain YAML"
    document.report(loc, f"{what}, which is not supported: write plain text, numbers, lists and mappings")
    document.unusable.add(loc)
    return None


def _convert_mapping(document: Document, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = _line(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            document.report(loc, "a key must be text, not a list or a mapping: use a known key", line)
        elif key_node.tag == "tag:yaml.org,2002:merge":
            document.report(loc, "YAML merges (`<<`) are not supported: write the keys out", line)
        elif key_node.tag != "tag:yaml.org,2002:str":
            document.report(loc, f"the key `{key_node.value}` is not text: put it in quotes", line)
        elif key_node.value in mapping:
            here = (*loc, key_node.value)
            document.report(
                here, f"duplicate key, first used on line {document.line_of(here)}: remove one", line
            )
        else:
            mapping[key_node.value] = _convert(document, value_node, (*loc, key_node.value), line)
    return mapping
