"""The simulation of many workers agrees with what can be calculated."""

from __future__ import annotations

import pytest

from benchmarks.scaling import STATEMENTS, STEPS, Costs, Outcome, Simulation


def simulated(costs: Costs, workers: int, cores: int = 1, body: float = 0.0, seed: int = 1) -> Outcome:
    """Return what the simulation saw."""
    return Simulation(costs, workers, cores, body, seed).run()


def test_one_worker_is_as_fast_as_its_costs_add_up_to() -> None:
    outcome = simulated(Costs(client=1, server=1, flush=1, network=1), workers=1)
    assert outcome.steps == pytest.approx(1_000 / 4 * STEPS / STATEMENTS, rel=0.1)
    assert outcome.statement == pytest.approx(3, rel=0.1)


def test_many_workers_are_as_fast_as_the_cores_of_the_database() -> None:
    outcome = simulated(Costs(client=1, server=1, flush=0.1, network=0.1), workers=100, cores=2)
    assert outcome.steps == pytest.approx(2_000 * STEPS / STATEMENTS, rel=0.1)
    assert outcome.busy == pytest.approx(1, abs=0.05)


def test_commits_that_wait_share_a_flush() -> None:
    costs = Costs(client=0.1, server=0.1, flush=10, network=0.1)
    assert simulated(costs, workers=50, cores=8).steps > 20 * simulated(costs, workers=1, cores=8).steps


def test_time_of_the_steps_themselves_is_the_workers() -> None:
    outcome = simulated(Costs(client=1, server=1, flush=1, network=1), workers=10, cores=2, body=200)
    assert outcome.steps == pytest.approx(10 * 1_000 / 200, rel=0.15)


def test_a_seed_decides() -> None:
    costs = Costs(client=1, server=1, flush=1, network=1)
    assert simulated(costs, workers=5, seed=3) == simulated(costs, workers=5, seed=3)
    assert simulated(costs, workers=5, seed=3) != simulated(costs, workers=5, seed=4)
