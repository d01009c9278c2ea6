"""What does Django's admin show and let staff do?

Functions, runs, events and waits have a list and a page for each row; runs have operations too. Another admin site
shows these pages after ``django_durable.admin.register(site)``.
"""

from __future__ import annotations

from django.contrib import admin

from ..models import Event, Function, Run, Wait
from .events import EventAdmin
from .functions import FunctionAdmin
from .runs.pages import RunAdmin
from .waits import WaitAdmin

__all__ = ["EventAdmin", "FunctionAdmin", "RunAdmin", "WaitAdmin", "register"]


def register(site: admin.AdminSite) -> None:
    """Show functions, runs, events and waits on *site*.

    Example::

        operations = AdminSite(name="operations")
        register(operations)
    """
    site.register(Function, FunctionAdmin)
    site.register(Run, RunAdmin)
    site.register(Event, EventAdmin)
    site.register(Wait, WaitAdmin)


register(admin.site)
