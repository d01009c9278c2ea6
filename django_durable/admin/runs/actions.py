"""Operations on runs, for staff: a page that asks, the engine that does it, and a note of who did it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partialmethod
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.text import capfirst, format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...engine.runs.operations import OPERATIONS, Operation, TooLate
from ...exceptions import DurableError
from ...models import Run
from ..shared.html import short
from ..shared.pages import ReadOnlyAdmin
from .forms import OperationForm, form_of

MOST = 200  #: runs of one action: as many as a list shows at once

Action = Callable[["RunActions", HttpRequest, QuerySet[Run]], HttpResponse | None]


def page_of(operation: Operation) -> str:
    """Return the name of the address of an operation's page."""
    return f"run_{operation.name}"


def _on_selected(operation: Operation) -> Action:
    """Return the action of the list that does an operation to the selected runs."""

    @admin.action(
        description=format_lazy(gettext_lazy("{verb} selected runs"), verb=operation.label),
        permissions=[page_of(operation)],
    )
    def act(model_admin: RunActions, request: HttpRequest, queryset: QuerySet[Run]) -> HttpResponse | None:
        return model_admin.act_on_selected(request, queryset, operation)

    act.__name__ = f"{operation.name}_selected"
    return act


class RunActions(ReadOnlyAdmin):
    """Adds the operations to the list and the pages of runs."""

    actions = [_on_selected(operation) for operation in OPERATIONS.values() if not operation.takes_step]

    def get_urls(self) -> list[URLPattern]:
        """Add a page for each operation."""
        return [*map(self._path, OPERATIONS.values()), *super().get_urls()]

    def _path(self, operation: Operation) -> URLPattern:
        def view(request: HttpRequest, object_id: str) -> HttpResponse:
            return self.operation_view(request, unquote(object_id), operation)

        name = f"django_durable_{page_of(operation)}"
        return path(f"<path:object_id>/{operation.name}/", self.admin_site.admin_view(view), name=name)

    def may(self, request: HttpRequest, operation: Operation) -> bool:
        """Tell whether this person may see runs and do *operation* to them."""
        return self.has_view_permission(request) and request.user.has_perm(operation.permission)

    def act_on_selected(
        self, request: HttpRequest, queryset: QuerySet[Run], operation: Operation
    ) -> HttpResponse | None:
        """Ask, then do *operation* to the selected runs."""
        selected = list(queryset[: MOST + 1])
        if len(selected) > MOST:
            self.message_user(request, _("Select at most %(count)d runs.") % {"count": MOST}, messages.ERROR)
            return None
        form = form_of(operation)(request.POST if "confirmed" in request.POST else None, operation, selected)
        if not form.is_valid():
            return self._ask(request, form, self.links.url("run_changelist"))
        self._act(request, form)
        return None

    def operation_view(self, request: HttpRequest, object_id: str, operation: Operation) -> HttpResponse:
        """Ask, then do *operation* to one run."""
        if not self.may(request, operation):
            raise PermissionDenied
        run = self.get_object(request, object_id)
        if run is None:
            return self.missing(request, object_id)
        form = form_of(operation)(request.POST if request.method == "POST" else None, operation, [run])
        if not form.is_valid():
            return self._ask(request, form, self.links.url("run_change", run.id))
        shown = self._act(request, form) or [run.id]
        return HttpResponseRedirect(self.links.url("run_change", shown[0]))

    def _ask(self, request: HttpRequest, form: OperationForm, back: str) -> HttpResponse:
        operation = form.operation
        context = {
            "back": back,
            "title": _question(operation, len(form.runs)),
            "summary": operation.summary,
            "yes": _("Yes, %(verb)s") % {"verb": str(operation.label).lower()},
            "action": f"{operation.name}_selected",
            "form": form,
            "runs": [(run, self.links.run(run.id), run.get_status_display()) for run in form.runs],
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return self.render(request, "admin/django_durable/confirm.html", None, context)

    def _act(self, request: HttpRequest, form: OperationForm) -> list[UUID]:
        """Do what a valid form asks for to each of its runs; return the runs to look at afterwards."""
        shown = [each for run in form.runs if (each := self._act_on(request, run, form))]
        if shown:
            self.message_user(request, _report(form.operation, len(shown)), messages.SUCCESS)
        return shown

    def _act_on(self, request: HttpRequest, run: Run, form: OperationForm) -> UUID | None:
        try:
            shown = form.operation.do_or_raise(run.id, **form.arguments())
        except TooLate as error:
            self.message_user(request, str(error), messages.WARNING)
            return None
        except DurableError as error:
            text = _("Run %(run)s: %(problem)s") % {"run": short(run.id), "problem": error}
            self.message_user(request, text, messages.WARNING)
            return None
        note = [_note(form.operation, run, shown), form.details(), form.cleaned_data["reason"]]
        self.log_change(request, run, " ".join(" ".join(note).split()))
        return shown


# Django asks the method of that name whether a person is offered an action that has a permission.
for _operation in OPERATIONS.values():
    setattr(RunActions, f"has_{page_of(_operation)}_permission", partialmethod(RunActions.may, operation=_operation))


def _question(operation: Operation, count: int) -> str:
    if operation.takes_step:
        return _("%(verb)s a wait?") % {"verb": operation.label}
    question = ngettext("%(verb)s this run?", "%(verb)s these %(count)d runs?", count)
    return question % {"verb": operation.label, "count": count}


def _report(operation: Operation, count: int) -> str:
    if operation.takes_step:
        return _("The wait was %(done)s.") % {"done": operation.done}
    report = ngettext("The run was %(done)s.", "%(count)d runs were %(done)s.", count)
    return report % {"done": operation.done, "count": count}


def _note(operation: Operation, run: Run, shown: UUID) -> str:
    """Return the words of the run's history for an operation that led to the run *shown*."""
    done = capfirst(str(operation.done))
    return f"{done}." if shown == run.id else _("%(done)s as %(run)s.") % {"done": done, "run": shown}
