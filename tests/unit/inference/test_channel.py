"""The bounded queue between two threads of a pipeline."""

from __future__ import annotations

from threading import Thread

import pytest

from augury.inference.channel import Channel, LeftError


def test_items_arrive_in_order_and_the_end_is_told() -> None:
    channel: Channel[int] = Channel(2)

    def send() -> None:
        for number in range(1000):
            channel.send(number)
        channel.close()

    thread = Thread(target=send)
    thread.start()
    assert list(channel.receive()) == list(range(1000))
    thread.join()


def test_the_sender_waits_for_room_and_is_checked_meanwhile() -> None:
    channel: Channel[int] = Channel(1)
    channel.send(1)

    def check() -> None:
        raise KeyError("asked to stop")

    with pytest.raises(KeyError):
        channel.send(2, check)
    assert next(channel.receive()) == 1


def test_the_receiver_is_checked_while_it_waits() -> None:
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise KeyError("asked to stop")

    with pytest.raises(KeyError):
        next(Channel[int](1).receive(check))
    assert len(asked) == 3


def test_an_error_of_the_sender_comes_after_what_it_sent() -> None:
    channel: Channel[int] = Channel(2)
    channel.send(1)
    channel.close(OSError("broken"))
    received = channel.receive()
    assert next(received) == 1
    with pytest.raises(OSError, match="broken"):
        next(received)


def test_a_receiver_that_left_is_told_to_the_sender_even_while_it_waits() -> None:
    channel: Channel[int] = Channel(1)
    channel.send(1)
    found: list[BaseException] = []

    def send() -> None:
        try:
            channel.send(2)
        except OSError as error:
            found.append(error)

    thread = Thread(target=send)
    thread.start()
    channel.leave(OSError("disk"))
    thread.join()
    assert [str(error) for error in found] == ["disk"]
    with pytest.raises(OSError, match="disk"):
        channel.raise_if_left()


def test_leaving_without_an_error_only_says_so() -> None:
    channel: Channel[int] = Channel(1)
    channel.leave()
    channel.leave(OSError("later"))
    channel.raise_if_left()
    with pytest.raises(LeftError):
        channel.send(1)
