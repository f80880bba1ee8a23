"""What people see of groups: `augury groups`, `augury events show`, `/v1/groups`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_world import Api, serve
from cli_world import Cli
from grouping_world import LANDED, GroupingWorld
from routing_world import dropped

from augury.settings import Settings
from augury.storage.database import Database

PAIRS = {"group": {"batch": {"max_events": 2}, "group_by": ["folder(data.key)"]}, "max_active": 1}


@pytest.fixture
def api(live_settings: Settings, database: Database) -> Iterator[Api]:
    world = GroupingWorld(database, live_settings)
    fill(world)
    with serve(live_settings) as found:
        yield found
    world.bus.close()


def fill(world: GroupingWorld) -> None:
    """Of one folder a group that acted, one that waits, and one that is open."""
    world.job()
    world.rule("pairs", LANDED, **PAIRS)
    world.publish(*(dropped(f"day/k{n}", id=f"e{n}") for n in range(5)))
    world.settle()


def test_the_command_line_shows_groups_and_what_is_waited_for(cli: Cli) -> None:
    world = GroupingWorld(cli.engine.database, cli.engine.settings)
    fill(world)
    opened, waiting, started = cli.json("groups", "list")
    assert [group["state"] for group in (opened, waiting, started)] == ["OPEN", "QUEUED", "STARTED"]
    assert {(g["rule"], str(g["key"])) for g in (opened, waiting)} == {("pairs", "['day']")}
    assert (started["num_active"], started["max_active"], started["why"]) == (1, 1, "full")
    listed = cli.ok("groups", "list", "--state", "open", "--rule", "pairs")
    assert opened["id"] in listed
    assert waiting["id"] not in listed
    assert "no groups" in cli.run("groups", "list", "--rule", "other").err
    shown = cli.json("groups", "show", waiting["id"])
    assert [member["uri"] for member in shown["members"]] == [
        "file:///in/day/k2",
        "file:///in/day/k3",
    ]
    assert "file:///in/day/k3" in cli.ok("groups", "show", waiting["id"])
    assert "no group with id" in cli.run("groups", "show", "grp_no").err
    reasons = {n: outcome_of(cli, f"e{n}") for n in (2, 4)}
    assert reasons[4]["group_id"] == opened["id"]
    assert reasons[4]["reason"].startswith(f"in group {opened['id']}: 1 event so far, closes 20")
    expected = (
        f"group {waiting['id']} waits: 1 runs of this rule and key are active, max_active is 1"
    )
    assert reasons[2]["reason"] == expected
    world.bus.close()


def outcome_of(cli: Cli, event_id: str) -> dict[str, str]:
    (outcome,) = cli.json("events", "show", event_id)["outcomes"]
    return dict(outcome)


def test_the_api_shows_groups_page_by_page(api: Api) -> None:
    first = api.get("/v1/groups?limit=2").body
    assert [group["state"] for group in first["items"]] == ["OPEN", "QUEUED"]
    rest = api.get(f"/v1/groups?limit=2&before={first['next']}").body
    assert [group["state"] for group in rest["items"]] == ["STARTED"]
    assert rest["next"] is None
    only = api.get("/v1/groups?state=QUEUED&rule=pairs").body["items"]
    assert [group["id"] for group in only] == [first["items"][1]["id"]]
    shown = api.get(f"/v1/groups/{only[0]['id']}").body
    assert [member["is_marker"] for member in shown["members"]] == [False, False]
    assert api.get("/v1/groups/grp_no").status == 404
    assert api.get("/v1/groups?before=grp_no").status == 404
    assert api.get("/v1/groups?state=ODD").status == 400
