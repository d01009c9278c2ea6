"""The pages' base: they read the durable database, change nothing, and never count millions of rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from ...conf import get_settings
from .html import Links
from .paginators import CappedChangeList, EstimatingPaginator


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of a page's head: a label and its value, which is text or safe HTML."""

    label: str
    value: object


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page. The first cell of each row is the row's head."""

    caption: str
    columns: list[str]
    rows: list[list[object]]
    note: str = ""


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Lists and shows rows; subclasses fill a page in :meth:`page`."""

    list_max_show_all = 200
    list_per_page = 50
    page_template = "admin/django_durable/page.html"
    paginator = EstimatingPaginator
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by = ()

    class Media:
        css = {"all": ["django_durable/admin.css"]}

    @cached_property
    def links(self) -> Links:
        """Links to the pages of this site."""
        return Links(self.admin_site.name)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: only the engine writes rows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: only the engine writes rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: only the engine deletes rows."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Read from the durable database."""
        return super().get_queryset(request).using(get_settings().database)

    def for_list(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows of a list with the columns that it shows, and without payloads."""
        return queryset

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list that asks :meth:`for_list` and shows capped counts."""
        return CappedChangeList

    def page(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return the template's context for the page of *obj*."""
        raise NotImplementedError

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the page of one object."""
        obj = self.get_object(request, unquote(object_id))
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request, obj):
            raise PermissionDenied
        if obj is None:
            return self.missing(request, object_id)
        return self.render(request, self.page_template, obj, {**self.page(request, obj), **(extra_context or {})})

    def missing(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Say that no such object exists, as Django's own pages do."""
        text = _("There is no %(name)s %(id)s. Perhaps it was deleted.")
        self.message_user(request, text % {"name": self.opts.verbose_name, "id": object_id}, messages.WARNING)
        return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))

    def render(self, request: HttpRequest, template: str, obj: Model | None, context: dict[str, Any]) -> HttpResponse:
        """Return *template* with *context* and the context of every page of an admin site."""
        request.current_app = self.admin_site.name
        site = {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media, "object": obj}
        return TemplateResponse(request, template, {**site, **context})
