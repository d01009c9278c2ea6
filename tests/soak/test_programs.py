"""The programs of a soak come from its seed, and travel as JSON."""

from __future__ import annotations

import json
import random

from tests.scenarios.programs import Catch, Race, Run, Sleep
from tests.soak.programs import as_json, outcome_of, random_program, read, tokens_in, written


def test_a_program_is_the_same_after_its_way_through_json() -> None:
    programs = [random_program(random.Random(seed)) for seed in range(200)]

    assert [read(json.loads(json.dumps(written(each)))) for each in programs] == programs


def test_a_seed_makes_the_same_program_again_and_another_one_makes_others() -> None:
    first, again, other = (random_program(random.Random(seed)) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_the_outcome_is_what_json_makes_of_the_models_result() -> None:
    program = (Run(0), Catch((Run(9),)), Race(1, ((Sleep(5),), (Sleep(5), Run(1)))))

    assert outcome_of(program) == [".0", "caught .1.0", [1, [None, ".2.1.1"]]]
    assert outcome_of((Run(9),)) == "failed"


def test_a_result_is_compared_without_the_tokens_of_its_calls() -> None:
    assert as_json([".0#0123abcd", ("caught .1.0#89abcdef", None)]) == [".0", ["caught .1.0", None]]
    assert tokens_in('[".0#0123abcd", "caught .1.0#89abcdef"]') == ["0123abcd", "89abcdef"]
