"""Paginators that count rows without reading millions of them."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import connections
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

CAP = 10_000  #: rows that are counted one by one
_ESTIMATE = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)"


class EstimatingPaginator(Paginator):  # type: ignore[type-arg]
    """Count up to 10,000 rows; beyond, ask PostgreSQL for its estimate of the table, or leave it at "more than"."""

    @cached_property
    def count(self) -> int:
        """The number of rows: exact up to 10,000, else PostgreSQL's estimate, else 10,001."""
        return self._estimate or self._capped_count

    @cached_property
    def count_text(self) -> str:
        """The number of rows, in words that say how sure it is."""
        if self._estimate:
            return _("about %(count)s") % {"count": _grouped(self._estimate)}
        if self._capped_count > CAP:
            return _("more than %(count)s") % {"count": _grouped(CAP)}
        return _grouped(self._capped_count)

    @cached_property
    def _capped_count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[: CAP + 1].count()

    @cached_property
    def _estimate(self) -> int | None:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        connection = connections[rows.db]
        if connection.vendor != "postgresql" or rows.query.has_filters():
            return None
        table = connection.ops.quote_name(rows.model._meta.db_table)
        with connection.cursor() as cursor:
            cursor.execute(_ESTIMATE, [table])
            (estimate,) = cursor.fetchone()
        return estimate if estimate and estimate > CAP else None


class CappedChangeList(ChangeList):
    """A list whose number of rows may be a lower bound or an estimate; it reads only the columns that it shows."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        """Return the rows that the filters leave, without payloads."""
        model_admin: Any = self.model_admin
        rows: QuerySet[Any] = model_admin.for_list(super().get_queryset(request, exclude_parameters))
        return rows

    def get_results(self, request: HttpRequest) -> None:
        """Read the page; keep the search form from printing the number as if it were exact."""
        super().get_results(request)
        self.full_result_count = self.result_count


def _grouped(count: int) -> str:
    return number_format(count, force_grouping=True)
