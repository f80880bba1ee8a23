from __future__ import annotations

import pytest

from augury.actions import secrets as secrets_module
from augury.actions.failures import DeliveryError
from augury.actions.secrets import Secrets
from augury.actions.webhook import sign


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's own reference libraries."""
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_without_prefix_is_the_key_itself() -> None:
    assert sign("abc", "id", 1, b"x") != sign("abd", "id", 1, b"x")
    with pytest.raises(ValueError, match="base 64"):
        sign("whsec_!", "id", 1, b"x")


def test_a_secret_is_taken_out_of_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://user:pa%2Fss-word@hooks.example.com/services/T0/B0?key=q-u-e-r-y"
    monkeypatch.setenv("AUGURY_SECRET_HOOK", url)
    secrets = Secrets()
    assert secrets.get("HOOK") == url
    told = f"{url} | pa/ss-word | /services/T0/B0 | key=q-u-e-r-y | hooks.example.com"
    assert secrets.scrub(told) == "*** | *** | *** | *** | hooks.example.com"


def test_a_secret_that_is_not_set_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUGURY_SECRET_HOOK", raising=False)
    with pytest.raises(DeliveryError, match="AUGURY_SECRET_HOOK") as caught:
        Secrets().get("HOOK")
    assert caught.value.is_permanent
    assert secrets_module.Secrets().scrub("abc") == "abc"
