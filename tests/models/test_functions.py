from __future__ import annotations

import pytest
from django.db.models import ProtectedError

from tests.models.rows import make_function, make_run

pytestmark = pytest.mark.django_db


def test_a_function_stays_while_it_has_runs() -> None:
    run = make_run()

    with pytest.raises(ProtectedError):
        run.function.delete()

    run.delete()
    run.function.delete()


def test_a_function_is_called_by_its_id() -> None:
    assert str(make_function("shop/fulfil")) == "shop/fulfil"
