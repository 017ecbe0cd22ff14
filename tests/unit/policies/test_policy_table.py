# SPDX-License-Identifier: Apache-2.0
"""Matching of cgroup paths to policies, against a naive oracle."""

from __future__ import annotations

import random
import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.path_managers.choice import PathManagerChoice
from pm.policies.globs import split_glob
from pm.policies.model import Policy
from pm.policies.policy_table import compile_policies, specificity


def policy(cgroup: str, name: str = "") -> Policy:
    return Policy(name=name or cgroup, cgroup=cgroup, path_manager=PathManagerChoice("none", None))


def winner(globs: list[str], cgroup: str) -> str | None:
    found = compile_policies(map(policy, globs)).match(cgroup)
    return found.cgroup if found else None


def levels_of(path: str) -> list[str]:
    return [] if path == "/" else path[1:].split("/")


def path_of(levels: list[str]) -> str:
    return "/" + "/".join(levels)


def oracle(glob: list[str], path: list[str]) -> bool:
    if not glob:
        return not path
    if glob[0] == "**":
        return any(oracle(glob[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], glob[0]) and oracle(glob[1:], path[1:])


def oracle_below(glob: list[str], path: list[str]) -> bool:
    """True where `path` could be extended, by one or more levels, to a match."""
    if not glob:
        return False
    if glob[0] == "**":
        return True
    return not path or (fnmatchcase(path[0], glob[0]) and oracle_below(glob[1:], path[1:]))


glob_levels = st.one_of(
    st.just("**"),
    st.sampled_from(
        ["a", "b", "ab", "*", "a*", "*b", "?", "a?", "*a*b*", "[ab]", "[!a]*", "[b-c]?", "*.b", "[]^-]"]
    ),
)
globs = st.lists(glob_levels, max_size=5)
paths = st.lists(st.text("abc.^-]\\", min_size=1, max_size=4), max_size=5)


@given(globs, paths)
def test_glob_matches_what_the_oracle_matches(glob: list[str], path: list[str]) -> None:
    """`direct` agrees with a naive matcher that tries every way to spread `**`."""
    table = compile_policies([policy(path_of(glob))])
    assert (table.direct(path_of(path)) is not None) == oracle(glob, path)


@given(globs, paths)
def test_could_match_below_agrees_with_the_oracle(glob: list[str], path: list[str]) -> None:
    """`could_match_below` is true exactly where the path is a possible prefix of a match."""
    table = compile_policies([policy(path_of(glob))])
    assert table.could_match_below(path_of(path)) == oracle_below(glob, path)


@given(globs, paths)
def test_every_ancestor_of_a_match_could_match_below(glob: list[str], path: list[str]) -> None:
    """Whoever watches the directories that could match below finds every match."""
    table = compile_policies([policy(path_of(glob))])
    if table.direct(path_of(path)):
        assert all(table.could_match_below(path_of(path[:i])) for i in range(len(path)))


@given(st.lists(globs.map(path_of), max_size=6, unique=True), paths, st.randoms())
def test_innermost_then_most_specific_whatever_the_order(
    texts: list[str], path: list[str], shuffler: random.Random
) -> None:
    """The owner is the most specific glob of the nearest matched cgroup, in any order of policies."""
    expected = None
    for end in range(len(path), -1, -1):
        matching = [t for t in texts if oracle(levels_of(t), path[:end])]
        if matching:
            expected = max(matching, key=lambda t: (specificity(t), t))
            break
    shuffler.shuffle(texts)
    assert winner(texts, path_of(path)) == expected


@pytest.mark.parametrize(
    ("narrow", "wide", "cgroup"),
    [
        ("/a/b", "/a/*", "/a/b"),
        ("/a/*/c", "/a/**/c", "/a/b/c"),
        ("/**/c", "/**", "/a/b/c"),
        ("/a/b*", "/a/*", "/a/bc"),
        ("/a/b?", "/a/b*", "/a/bc"),
        ("/a/[bc]", "/a/?", "/a/b"),
        ("/a/??*", "/a/?*", "/a/bc"),
        ("/a/b*d", "/a/b*d*", "/a/bcd"),
        ("/*/b", "/**/b*", "/a/b"),
    ],
)
def test_the_narrower_glob_is_the_more_specific(narrow: str, wide: str, cgroup: str) -> None:
    """Where one glob matches a subset of another's cgroups, the narrower one wins."""
    assert winner([wide, narrow], cgroup) == narrow
    assert winner([narrow, wide], cgroup) == narrow


def test_descendants_belong_to_the_nearest_matched_ancestor() -> None:
    """A wide glob on an inner cgroup beats a literal one on an outer cgroup."""
    texts = ["/", "/user.slice", "/user.slice/*"]
    assert winner(texts, "/user.slice/session-1.scope/deep/er") == "/user.slice/*"
    assert winner(texts, "/user.slice") == "/user.slice"
    assert winner(texts, "/system.slice/x") == "/"
    assert winner(["/user.slice"], "/system.slice") is None
    assert winner([], "/") is None


def test_a_backslash_is_an_ordinary_character() -> None:
    r"""systemd writes `-` in instance names as `\x2d`; globs copy such names unchanged."""
    name = r"/system.slice/system-foo\x2dbar.slice"
    assert winner([name], name) == name


def test_sets_quote_special_characters() -> None:
    """`[*]`, `[[]` and `[]]` stand for the character itself."""
    assert winner(["/[*][[][]]"], "/*[]") == "/[*][[][]]"
    assert winner(["/[*][[][]]"], "/x[]") is None


@pytest.mark.parametrize(
    ("glob", "why"),
    [
        ("a/b", "must start with `/`"),
        ("", "must start with `/`"),
        ("/a/../b", "outside the cgroup2 root"),
        ("/a/./b", "a level `.`"),
        ("/a//b/", "write `/a/b`"),
        ("//", "write `/`"),
        ("/a**b", "must be a whole level"),
        ("/[ab", "is not closed"),
        ("/[]", "is not closed"),
        ("/[!]", "is not closed"),
        ("/[a/b]", "is not closed"),
        ("/[z-a]", "write `a-z`"),
        ("/a\nb", "control character"),
    ],
)
def test_a_bad_glob_says_what_would_be_right(glob: str, why: str) -> None:
    """Every malformed glob is refused with its remedy."""
    with pytest.raises(ValueError, match=r".") as e:
        split_glob(glob)
    assert why in str(e.value)


def test_a_hostile_cgroup_name_does_not_stall_matching() -> None:
    """Many wildcards over a long name stay polynomial: far less than the ages a naive regex takes."""
    table = compile_policies([policy("/" + "*a" * 20 + "*b"), policy("/**/a" * 12 + "/b")])
    start = time.process_time()
    assert table.direct("/" + "a" * 255) is None
    assert table.direct("/a" * 200) is None
    assert time.process_time() - start < 5


def test_matching_a_thousand_cgroups_takes_no_longer_than_a_naive_regex_per_policy() -> None:
    """10 policies x 1000 cgroups: one alternation costs less than one fnmatch per policy and cgroup."""
    texts = [f"/system.slice/service-{i}*.service" for i in range(8)] + ["/user.slice/**/ssh*.scope", "/"]
    table = compile_policies(map(policy, texts))
    cgroups = [f"/system.slice/service-{i % 10}{i}.service/inner" for i in range(1000)]

    def measure(run: object) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            for cgroup in cgroups:
                run(cgroup)  # type: ignore[operator]
            times.append(time.process_time() - start)
        return min(times)

    naive = measure(lambda c: [fnmatchcase(c, t) for t in texts])
    assert measure(table.match) < naive


def test_auto_is_what_was_found() -> None:
    """Exactly the found cgroups; another policy for the same cgroup wins, one for an ancestor does not."""
    table = compile_policies([policy("auto", "pod"), policy("/", "all"), policy("/d/own", "own")])
    assert [p.name for p in table.policies] == ["own", "all", "pod"]
    assert not table.could_match_below("/d/x")
    found = table.with_found(["/d/x/y", "/d/own"])
    for path, name in {"/d/x": "all", "/d/x/y": "pod", "/d/x/y/z": "pod", "/d/own": "own"}.items():
        owner = found.match(path)
        assert owner
        assert owner.name == name
    paths = ("/", "/d", "/d/x", "/d/x/y", "/e")
    assert [path for path in paths if found.could_match_below(path)] == ["/", "/d", "/d/x"]
    assert table.direct("/d/x/y") is None
    assert compile_policies([policy("/")]).with_found(["/d"]).direct("/d") is None
