from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

from django_durable.core.values.encoding import from_json, to_json


def test_a_zone_keeps_its_name_for_later_arithmetic() -> None:
    data = to_json(datetime(2030, 7, 1, 9, tzinfo=ZoneInfo("Europe/Berlin")))
    assert data == {"$": "datetime", "v": "2030-07-01T09:00:00+02:00", "zone": "Europe/Berlin"}


def test_a_zone_that_this_machine_lacks_leaves_the_offset() -> None:
    moment = from_json({"$": "datetime", "v": "2030-07-01T09:00:00+02:00", "zone": "Mars/Olympus"})
    assert moment == datetime(2030, 7, 1, 7, tzinfo=UTC)
    assert from_json({"$": "time", "v": "09:00:00", "zone": "../etc/passwd"}) == time(9)


def test_the_moment_survives_a_change_of_the_zones_rules() -> None:
    recorded_under_other_rules = {"$": "datetime", "v": "2030-07-01T09:00:00+03:00", "zone": "Europe/Berlin"}
    moment = from_json(recorded_under_other_rules)
    assert moment == datetime(2030, 7, 1, 6, tzinfo=UTC)
    assert moment.isoformat() == "2030-07-01T08:00:00+02:00"
