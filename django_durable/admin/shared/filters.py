"""Filters that know their choices without reading a column of millions of rows."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ...conf import get_settings
from ...models import Function


class FunctionFilter(admin.SimpleListFilter):
    """Runs of one function, chosen from the table of functions."""

    title = _("function")
    parameter_name = "function"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return every known function."""
        ids = Function.objects.using(get_settings().database).order_by("id").values_list("id", flat=True)
        return [(id, id) for id in ids]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the chosen function's runs."""
        return queryset.filter(function_id=self.value()) if self.value() else queryset
