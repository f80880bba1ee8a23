"""Which keys a source announces: pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_HIDDEN = (".", "_")
_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~")


def is_announced(key: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> bool:
    """True if a source with these globs announces the object at `key`."""
    *folders, name = key.split("/")
    if any(folder.startswith(_HIDDEN) for folder in folders):
        return False
    if name.startswith(_HIDDEN) and not any(_names_hidden(glob, key) for glob in include):
        return False
    if key.lower().endswith(_UNFINISHED):
        return False
    if include and not any(glob_matches(glob, key) for glob in include):
        return False
    return not any(glob_matches(glob, key) for glob in exclude)


def _names_hidden(glob: str, key: str) -> bool:
    """True if the glob means this name: as in a shell, `*` alone does not mean hidden ones."""
    return glob.rpartition("/")[2].startswith(_HIDDEN) and glob_matches(glob, key)


def glob_matches(glob: str, key: str) -> bool:
    """True if the glob matches the whole key.

    `*` and `?` stay within a folder, `**/` stands for any number of folders (none included), a
    `**` at the end for everything below, `[a-z]` and `[!a-z]` for one character.
    """
    return _compiled(glob).fullmatch(key) is not None


_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)
_MEANING = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile("".join(_translated(token) for token in _TOKENS.findall(glob)), re.DOTALL)


def _translated(token: str) -> str:
    if token in _MEANING:
        return _MEANING[token]
    if len(token) > 1:
        inner = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
        return f"(?!/)[^{inner[1:]}]" if inner.startswith("!") else f"(?!/)[{inner}]"
    return re.escape(token)
