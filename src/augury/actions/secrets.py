"""Secrets that rules name, as the delivering process has them in its environment.

Values that were handed out are taken out of every text on its way to the ledger or a log: what a
server or a library says of a request may contain the URL or the header that it was made of.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from augury import settings
from augury.actions.failures import DeliveryError

_SHORTEST = 4


class Secrets:
    """The secrets of one delivery."""

    def __init__(self) -> None:
        self._handed_out: set[str] = set()

    def get(self, name: str) -> str:
        """The secret of this name.

        Raises:
            DeliveryError: it is not set.
        """
        value = settings.secret(name)
        if not value:
            raise DeliveryError(
                f"secret {name} is not set: give AUGURY_SECRET_{name} to the process that "
                "delivers, then redrive",
                is_permanent=True,
            )
        self._handed_out |= {value, *_parts(value)}
        return value

    def scrub(self, text: str) -> str:
        """`text` without any secret that was handed out."""
        for value in sorted(self._handed_out, key=len, reverse=True):
            text = text.replace(value, "***")
        return text


def _parts(value: str) -> set[str]:
    """What of a URL is secret even when it stands alone: its password, path and query."""
    try:
        parts = urlsplit(value) if "://" in value else None
    except ValueError:
        return set()
    if parts is None:
        return set()
    password = parts.password or ""
    found = (password, unquote(password), parts.path, parts.query)
    return {text for text in found if len(text) > _SHORTEST}
