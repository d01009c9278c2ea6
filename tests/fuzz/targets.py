"""Every target: what is fed to which check, and how often the ordinary suite does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import inputs, pure, stored

CHECKS_OFF = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@dataclass(frozen=True, slots=True)
class Target:
    """A check with its inputs; *examples* are those of the ordinary suite.

    *read* makes an input of text: so a fuzzer can change the text itself, a thousand times a second.
    """

    name: str
    check: Callable[[Any], None]
    given: st.SearchStrategy[Any]
    examples: int = 50
    database: bool = False
    read: Callable[[str], Any] | None = None

    def property(self) -> Any:
        """Return the check as a property that hypothesis runs."""

        def check(given: Any) -> None:
            self.check(given)

        limits = settings(max_examples=self.examples, suppress_health_check=CHECKS_OFF, deadline=None)
        return limits(given(self.given)(check))

    def feeder(self) -> Callable[[bytes], object]:
        """Return what checks the input that bytes make."""
        read = self.read
        if read is None:
            fuzz: Callable[[bytes], object] = self.property().hypothesis.fuzz_one_input
            return fuzz
        return lambda content: self.check(read(content.decode("utf-8", "surrogateescape")))

    def seeds(self, count: int) -> Iterator[bytes]:
        """Yield texts of inputs to begin with, where these are texts."""
        if self.read is str:
            texts: list[str] = []
            limits = settings(
                max_examples=count, suppress_health_check=CHECKS_OFF, database=None, phases=[Phase.generate]
            )
            limits(given(self.given)(lambda given: texts.append(given if isinstance(given, str) else "")))()
            yield from (text.encode("utf-8", "surrogatepass") for text in texts)


def _with_events(source: str) -> tuple[str, Any, Any]:
    return source, {"a": 1, "b": [1, {"a": "x"}]}, {"a": 1.0, "b": ["a", None], "$": {"v": True}}


def _with_data(path: str) -> tuple[str, Any]:
    return path, {"a": [1, {"b": None}], "$": {"0": "x"}}


_cases = st.tuples(inputs.expressions, inputs.documents | inputs.objects, inputs.documents | inputs.objects)
_paths = st.lists(st.sampled_from(["data", "user", "a", "b", "0", "$", "event", "..", " "]) | inputs.texts, max_size=5)
_json = inputs.json_texts | inputs.damaged() | inputs.texts

TARGETS = {
    target.name: target
    for target in (
        Target("decoding", pure.decoding, _json, read=str),
        Target("round-trip", pure.round_trip, inputs.values),
        Target("event-data", pure.event_data, inputs.objects | inputs.values),
        Target("errors", pure.errors, _json, read=str),
        Target("history", pure.history, _json, read=str),
        Target("duration", pure.duration, inputs.durations, read=str),
        Target("moment", pure.moment, inputs.durations | st.datetimes(timezones=st.timezones()) | st.dates(), read=str),
        Target("expression", pure.expression, _cases, examples=100, read=_with_events),
        Target("match-path", pure.match_path, st.tuples(_paths.map(".".join), inputs.objects), read=_with_data),
        Target("typed-json", pure.typed_json, _json, read=str),
        Target("ingest", stored.ingest, st.lists(inputs.events, max_size=8), examples=6, database=True),
        Target("damaged-rows", stored.damaged_rows, st.lists(inputs.tagged, max_size=8), examples=6, database=True),
        Target("reference", stored.reference, inputs.references, database=True),
        Target("message", stored.message, inputs.hints, examples=15, database=True),
        Target("replay", stored.replay, inputs.documents | inputs.values, examples=6, database=True),
    )
}
