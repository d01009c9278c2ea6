"""Small pieces of HTML: statuses, moments, links. All data in them are escaped."""

from __future__ import annotations

import datetime
from uuid import UUID

from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from ...core import clock
from ...core.durations import describe

NOTHING = "-"
_ICONS = {
    "queued": "◌",
    "planned": "◌",
    "running": "▶",
    "waiting": "◔",
    "completed": "✔",
    "failed": "✖",
    "cancelled": "⊘",
    "discarded": "⊘",
    "skipped": "»",
}
_SECOND = datetime.timedelta(seconds=1)
_MILLISECOND = datetime.timedelta(milliseconds=1)


def status_mark(status: str, label: str) -> SafeString:
    """Return a status as icon and word."""
    return format_html(
        '<span class="durable-status durable-{}"><span aria-hidden="true">{}</span> {}</span>',
        status,
        _ICONS.get(status, "•"),
        label,
    )


def elapsed(duration: datetime.timedelta) -> str:
    """Write a duration for people: milliseconds below ten seconds, seconds above."""
    unit = _MILLISECOND if abs(duration) < 10 * _SECOND else _SECOND
    return describe(duration // unit * unit)


def relative(moment: datetime.datetime) -> str:
    """Say how long ago, or in how long."""
    ahead = moment - clock.now()
    if ahead > datetime.timedelta():
        return _("in %(duration)s") % {"duration": elapsed(ahead)}
    return _("%(duration)s ago") % {"duration": elapsed(-ahead)}


def moment_mark(moment: datetime.datetime | None, *, spelled: bool = False) -> SafeString | str:
    """Return a moment in the current time zone; how long ago on hovering, or, *spelled*, beside it."""
    if moment is None:
        return NOTHING
    shown = date_format(localtime(moment), "Y-m-d H:i:s")
    mark = format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), relative(moment), shown)
    return format_html("{} ({})", mark, relative(moment)) if spelled else mark


def short(id: UUID | str) -> str:
    """Return the ends of an id: the time-ordered head and the random tail."""
    return f"{str(id)[:8]}…{str(id)[-6:]}"


class Links:
    """Links between the pages of one admin site."""

    def __init__(self, site_name: str) -> None:
        self._site = site_name

    def url(self, page: str, *args: object) -> str:
        """Return the address of a page such as ``run_changelist`` or, of one object, ``run_change``."""
        quoted = [quote(str(each)) for each in args]
        return reverse(f"admin:django_durable_{page}", args=quoted, current_app=self._site)

    def run(self, run_id: UUID, text: str | None = None) -> SafeString:
        """Link to a run; its short id is its text unless another is given."""
        return self._titled("run_change", run_id, text)

    def event(self, event_id: UUID, text: str | None = None) -> SafeString:
        """Link to an event."""
        return self._titled("event_change", event_id, text)

    def _titled(self, page: str, id: UUID, text: str | None) -> SafeString:
        return format_html(
            '<a class="durable-link" href="{}" title="{}">{}</a>', self.url(page, id), id, text or short(id)
        )

    def function(self, function_id: str) -> SafeString:
        """Link to a function."""
        return format_html('<a href="{}">{}</a>', self.url("function_change", function_id), function_id)

    def runs_of(self, function_id: str, text: str, **filters: str) -> SafeString:
        """Link to the list of a function's runs."""
        query = urlencode({"function": function_id, **filters})
        return format_html('<a href="{}?{}">{}</a>', self.url("run_changelist"), query, text)
