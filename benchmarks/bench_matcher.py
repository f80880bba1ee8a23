"""Events a second through the matcher, and rules a second into it.

Events are made here: parcels of land of about 690 bytes, with an array of objects in them. For each
kind of operator there are 5 rules; the matcher gets bytes and gives the set of rules. Then 10 to
100,000 exact and prefix rules, half of each. Times are CPU seconds of this process, the best of
several rounds, so that a neighbour on the machine disturbs little. Run it with

    python benchmarks/bench_matcher.py [--json FILE] [--dialect augury] [--events 2000]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from augury.rules import Matcher

ROUNDS = 7
STREETS = ("JEFFERSON", "FULTON", "MASON", "BEACH", "HYDE", "CHESTNUT", "ACTON", "BLAKE", "DRUMM")


def make_event(number: int) -> bytes:
    """One parcel of land."""
    dice = random.Random(number)
    points = [
        {
            "x": round(dice.uniform(-122.5, -122.3), 14),
            "y": round(dice.uniform(37.6, 37.9), 14),
            "z": 0,
        }
        for _ in range(dice.randint(4, 7))
    ]
    lot = f"{dice.randrange(10_000):04}{dice.randrange(1000):03}"
    street = dice.choice(STREETS)
    event = {
        "type": "Feature",
        "properties": {
            "lot": lot,
            "block": lot[:4],
            "from": str(dice.randrange(2000)),
            "to": str(dice.randrange(2000)),
            "street": street,
            "street_type": dice.choice(("ST", "AV", "PL")),
            "side": dice.choice(("O", "E")),
            "owner": f"person {dice.randrange(10**9)}",
            "zoning": dice.choice(("RESIDENTIAL", "COMMERCIAL", "INDUSTRIAL")),
            "assessed_on": f"2026-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}",
            "assessed_value": dice.randrange(10**7),
            "remarks": "nothing that any rule would ask for",
        },
        "geometry": {
            "type": "Polygon" if dice.random() < 0.99 else "MultiPolygon",
            "first": points[0],
            "points": points,
        },
    }
    return msgspec.json.encode(event)


def _of(field: str, *tests: Any) -> list[dict[str, Any]]:
    return [{"properties": {field: [test]}} for test in tests]


def _at(path: str, *fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Two rules that also ask for the type, and the rest alone."""
    kinds: list[dict[str, Any]] = [{"type": ["Polygon"]}, {"type": ["MultiPolygon"]}, {}, {}, {}]
    return [{"geometry": {**kind, path: field}} for kind, field in zip(kinds, fields, strict=True)]


RANGES = (
    {"x": [{"numeric": ["=", -122.42916360922355]}]},
    {"y": [{"numeric": ["=", 37.729900216217324]}]},
    {"x": [{"numeric": ["<", -122.416]}]},
    {"x": [{"numeric": [">", -122.416]}]},
    {"x": [{"numeric": [">", -122.46471267081272, "<", -122.4063085128395]}]},
)
KINDS: dict[str, list[dict[str, Any]]] = {
    "exact": _of("lot", "1430022", "2607117", "2607218", "3745012", "9999999"),
    "prefix": _of("street", *({"prefix": text} for text in ("AC", "BL", "DR", "FU", "RH"))),
    "suffix": _of("street", *({"suffix": text} for text in ("ON", "KE", "MM", "ING", "GO"))),
    "equals-ignore-case": _of(
        "street", *({"equals-ignore-case": t} for t in ("jefferson", "bEaCh", "HyDe", "x", "st"))
    ),
    "wildcard": _of(
        "lot", *({"wildcard": text} for text in ("143*", "2*0*1*7", "*218", "3*5*2", "9*99"))
    ),
    "anything-but": [
        *_of("street", {"anything-but": ["FULTON"]}, {"anything-but": ["MASON"]}),
        *_of("street_type", {"anything-but": ["ST"]}),
        *_of("from", {"anything-but": ["441"]}),
        {"geometry": {"type": [{"anything-but": ["Polygon"]}]}},
    ],
    "numeric": _at("first", *RANGES),
    "arrays of objects": _at("points", *RANGES),
}


def measure(work: Callable[[], object], count: int) -> float:
    """Best rate of several rounds, in `count` a CPU second."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return count / best


def match_all(matcher: Matcher, events: Sequence[bytes]) -> Callable[[], None]:
    def work() -> None:
        match = matcher.match
        for event in events:
            match(event)

    return work


def bench_kinds(events: Sequence[bytes], dialect: str) -> dict[str, float]:
    found = {}
    for kind, patterns in KINDS.items():
        matcher = Matcher({f"r{i}": p for i, p in enumerate(patterns)}, dialect=dialect)
        found[kind] = measure(match_all(matcher, events), len(events))
    return found


def bench_sizes(events: Sequence[bytes], sizes: Sequence[int]) -> list[dict[str, float]]:
    found = []
    for size in sizes:
        rules = {f"r{n}": _rule(n) for n in range(size)}
        start = time.process_time()
        matcher = Matcher(rules)
        matcher.match(events[0])
        seconds = time.process_time() - start
        rate = measure(match_all(matcher, events), len(events))
        found.append({"rules": size, "events_per_s": rate, "rules_per_s": size / seconds})
    return found


def _rule(number: int) -> dict[str, Any]:
    if number % 2:
        return _of("lot", f"{number:07}")[0]
    return _of("street", {"prefix": f"{random.Random(number).getrandbits(48):x}"})[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--dialect", default="augury")
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--max-rules", type=int, default=100_000)
    options = parser.parse_args()
    events = [make_event(number) for number in range(options.events)]
    sizes = [10**n for n in range(1, 6) if 10**n <= options.max_rules]
    figures = {
        "python": sys.version.split()[0],
        "event_bytes": sum(map(len, events)) / len(events),
        "decode_all_per_s": measure(lambda: [msgspec.json.decode(e) for e in events], len(events)),
        "kinds_events_per_s": bench_kinds(events, options.dialect),
        "sizes": bench_sizes(events, sizes),
    }
    _show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _show(figures: dict[str, Any]) -> None:
    print(f"events of {figures['event_bytes']:.0f} bytes, bytes to matched set, one core")
    print(f"{'a full decode alone':22}{figures['decode_all_per_s']:>12,.0f} events/s")
    for kind, rate in figures["kinds_events_per_s"].items():
        print(f"{kind:22}{rate:>12,.0f} events/s")
    for row in figures["sizes"]:
        label = f"{row['rules']:,} rules"
        rates = (
            f"{row['events_per_s']:>12,.0f} events/s, built at {row['rules_per_s']:,.0f} rules/s"
        )
        print(f"{label:22}{rates}")


if __name__ == "__main__":
    main()
