"""Field types that the specs of actions share: texts with holes, JSON with holes, names of secrets.

Everything that can be known to be wrong before an event arrives is found here, when the rule is
applied. A secret is never part of a rule: a rule names it, and the process that delivers reads it
from its environment (`settings.secret`), so that no listing, log or dead letter can show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from augury.actions.template import check

SECRET_ERROR = "secret_in_rule"  # noqa: S105 - the name of an error
_SECRET = re.compile(r"[A-Z][A-Z0-9_]{0,99}\Z")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")
_WEB = ("http://", "https://")
# said by Augury itself, or by HTTP
_RESERVED_HEADERS = frozenset(
    {"connection", "content-length", "host", "transfer-encoding", "trailer", "upgrade"}
    | {"webhook-id", "webhook-timestamp", "webhook-signature"}
)
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})


def secret_error(message: str) -> PydanticCustomError:
    """The error of a value that is, or may be, a secret: nobody repeats the value."""
    return PydanticCustomError(SECRET_ERROR, "{said}", {"said": message})


class Spec(BaseModel):
    """Base of all parts of an action: unknown fields are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def exactly_one(spec: Spec, *names: str) -> None:
    """Refuses a spec of which not exactly one of these fields is given.

    Raises:
        ValueError: saying which are.
    """
    given = [name for name in names if getattr(spec, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValueError(f"expected exactly one of {', '.join(names)}, found {found}")


def listed(found: Any) -> Any:
    """One text stands for a list of one."""
    return (found,) if isinstance(found, str) else found


def _secret_name(text: str) -> str:
    if not _SECRET.match(text):
        raise secret_error(
            "expected the name of a secret, such as SLACK_HOOK for what the environment variable "
            "AUGURY_SECRET_SLACK_HOOK holds: capital letters, digits and '_'; never the secret"
        )
    return text


def _check_json(value: Any) -> Any:
    """Checks every text within a JSON value as a template."""
    if isinstance(value, str):
        check(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"expected texts as keys, found {key!r}")
            _check_json(item)
    elif isinstance(value, list):
        for item in value:
            _check_json(item)
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"expected a JSON value, found {type(value).__name__}")
    return value


def _web_url(text: str) -> str:
    if not text.startswith(_WEB):
        raise ValueError(f"expected a URL that begins with https:// or http://, found {text!r:.80}")
    authority = _authority(text)
    if not authority:
        raise ValueError(f"expected a URL such as https://host/path, found {text!r:.80}")
    return _without(authority, "@", text)


def _broker_url(text: str) -> str:
    if "://" not in text:
        raise ValueError(f"expected a URL such as amqp://host:5672//, found {text!r:.80}")
    user = _authority(text).rpartition("@")[0]
    return _without(user, ":", text)


def _authority(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _without(authority: str, mark: str, text: str) -> str:
    if mark in authority:
        raise secret_error(
            "a URL with a password must not stand in a rule: put all of it into the environment "
            "as AUGURY_SECRET_YOUR_NAME, and name it here by `url_secret`"
        )
    return text


def _headers(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in headers:
        if not _HEADER.match(name):
            raise ValueError(f"expected the name of an HTTP header, found {name!r:.80}")
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"header {name!r} is set by Augury and cannot be given")
    return headers


def _public_headers(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in headers:
        if name.lower() in _CREDENTIALS:
            raise secret_error(f"header {name!r} holds a secret: name one in `secret_headers`")
    return headers


Template = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(check)]
Text = Annotated[str, Field(min_length=1, max_length=65_536), AfterValidator(check)]
Json = Annotated[Any, AfterValidator(_check_json)]
SecretName = Annotated[str, AfterValidator(_secret_name)]
WebUrl = Annotated[Template, AfterValidator(_web_url)]
BrokerUrl = Annotated[Template, AfterValidator(_broker_url)]
Templates = Annotated[tuple[Template, ...], BeforeValidator(listed), Field(min_length=1)]
Headers = Annotated[dict[str, Template], AfterValidator(_headers), AfterValidator(_public_headers)]
SecretHeaders = Annotated[dict[str, SecretName], AfterValidator(_headers)]


def origin(url: str) -> str:
    """`scheme://host:port` of a URL, without user and path: what fails together.

    Raises:
        ValueError: it has no host though it is a web address, or a port that is none.
    """
    parts = urlsplit(url)
    if not parts.hostname and url.startswith(_WEB):
        raise ValueError(f"expected a URL with a host, found {url!r:.80}")
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme.lower()}://{parts.hostname or parts.path}{port}"
