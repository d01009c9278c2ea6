"""What staff may do to runs: who may, a page that asks, the engine that does it, and a note of who did it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from ...engine.runs import ending, interventions, replays
from ...exceptions import DurableError
from ...models import ENDED, Run, RunStatus, Step, StepKind, StepStatus
from ..shared.html import short
from ..shared.pages import ReadOnlyAdmin
from .forms import ActionForm, AnswerForm, ReplayForm, WaitForm

MOST = 200  #: runs of one action: as many as a list shows at once


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAction:
    """Something that staff may do to runs.

    *act* takes a run's id and the filled form; it returns the id of the run to look at then, None if it was *too_late*.
    *question* and *done* take ``%(count)d`` runs; *note*, what the log keeps, ``%(run)s``.
    """

    name: str
    permission: str
    label: Promise
    question: Promise
    warning: Promise
    yes: Promise
    done: Promise
    too_late: Promise
    note: Promise
    act: Callable[[UUID, Any], UUID | None]
    form: type[ActionForm] = ActionForm

    @property
    def page(self) -> str:
        """The name of its page's address."""
        return f"run_{self.name}"


def _cancel(run_id: UUID, form: ActionForm) -> UUID | None:
    return run_id if ending.cancel(run_id, form.cleaned_data["reason"]) else None


def _replay(run_id: UUID, form: ReplayForm) -> UUID | None:
    step, sure = form.cleaned_data.get("from_step"), form.cleaned_data.get("sure", False)
    once = form.cleaned_data["once"]
    return replays.replay(run_id, data=form.data_to_use, from_step=step or None, confirmed=sure, once=once)


def _wake(run_id: UUID, form: ActionForm) -> UUID | None:
    return run_id if interventions.wake_run(run_id) else None


def _retry(run_id: UUID, form: ActionForm) -> UUID | None:
    return run_id if interventions.retry_now(run_id) else None


def _time_out(run_id: UUID, form: WaitForm) -> UUID | None:
    return run_id if interventions.time_out_wait(run_id, form.cleaned_data["step"]) else None


def _resolve(run_id: UUID, form: AnswerForm) -> UUID | None:
    return run_id if interventions.resolve_wait(run_id, form.cleaned_data["step"], form.cleaned_data["data"]) else None


CANCEL = RunAction(
    name="cancel",
    permission="cancel_run",
    label=gettext_lazy("Cancel"),
    question=ngettext_lazy("Cancel this run?", "Cancel these %(count)d runs?", "count"),
    warning=gettext_lazy(
        "No further step starts. A step that runs right now is not interrupted; its result is discarded."
    ),
    yes=gettext_lazy("Yes, cancel"),
    done=ngettext_lazy("The run was cancelled.", "%(count)d runs were cancelled.", "count"),
    too_late=gettext_lazy("It had ended already."),
    note=gettext_lazy("Cancelled."),
    act=_cancel,
)
REPLAY = RunAction(
    name="replay",
    permission="replay_run",
    label=gettext_lazy("Replay"),
    question=ngettext_lazy("Replay this run?", "Replay these %(count)d runs?", "count"),
    warning=gettext_lazy(
        "A new run starts with the same trigger. From the start, every step runs again; from a step, that step and all "
        "that was recorded after it."
    ),
    yes=gettext_lazy("Yes, replay"),
    done=ngettext_lazy("This new run replays it.", "%(count)d new runs were started.", "count"),
    too_late=gettext_lazy("It had ended already."),
    note=gettext_lazy("Replayed as %(run)s."),
    act=_replay,
    form=ReplayForm,
)
WAKE = RunAction(
    name="wake",
    permission="resolve_wait",
    label=gettext_lazy("Wake now"),
    question=ngettext_lazy("Wake this run?", "Wake these %(count)d runs?", "count"),
    warning=gettext_lazy("The sleep ends now, and the run goes on."),
    yes=gettext_lazy("Yes, wake"),
    done=ngettext_lazy("The run was woken.", "%(count)d runs were woken.", "count"),
    too_late=gettext_lazy("It does not wait any more."),
    note=gettext_lazy("Woken."),
    act=_wake,
)
RETRY = RunAction(
    name="retry",
    permission="resolve_wait",
    label=gettext_lazy("Retry now"),
    question=ngettext_lazy("Retry this run?", "Retry these %(count)d runs?", "count"),
    warning=gettext_lazy("The next attempt starts now. It counts as every other attempt."),
    yes=gettext_lazy("Yes, retry"),
    done=ngettext_lazy("The run is tried again.", "%(count)d runs are tried again.", "count"),
    too_late=gettext_lazy("It does not wait any more."),
    note=gettext_lazy("Retried."),
    act=_retry,
)
TIME_OUT = RunAction(
    name="time_out",
    permission="resolve_wait",
    label=gettext_lazy("Time out now"),
    question=ngettext_lazy("Let a wait time out?", "Let waits time out?", "count"),
    warning=gettext_lazy("The step times out now, as if its time were over, and the run goes on."),
    yes=gettext_lazy("Yes, time out"),
    done=ngettext_lazy("The wait has timed out.", "The waits have timed out.", "count"),
    too_late=gettext_lazy("The step was settled already."),
    note=gettext_lazy("Timed out."),
    act=_time_out,
    form=WaitForm,
)
RESOLVE = RunAction(
    name="resolve",
    permission="resolve_wait",
    label=gettext_lazy("Resolve with data"),
    question=ngettext_lazy("Answer a wait?", "Answer waits?", "count"),
    warning=gettext_lazy("The step gets these data, as if the event had come, and the run goes on."),
    yes=gettext_lazy("Yes, resolve"),
    done=ngettext_lazy("The wait was resolved.", "The waits were resolved.", "count"),
    too_late=gettext_lazy("The step was settled already."),
    note=gettext_lazy("Resolved."),
    act=_resolve,
    form=AnswerForm,
)
ALL = (RESOLVE, TIME_OUT, WAKE, RETRY, CANCEL, REPLAY)


def useful(run: Run) -> list[RunAction]:
    """Return the actions that a run in this state may need."""
    if run.status in ENDED:
        return [REPLAY]
    waiting = Step.objects.using(run._state.db).filter(run_id=run.id, status=StepStatus.WAITING)
    kinds = {_kind(*row) for row in waiting.values_list("kind", "attempt").distinct()}
    if run.status == RunStatus.WAITING:
        kinds |= {_KINDS_OF_RUNS.get(run.waiting_kind, "")}
    return [action for action in ALL if action not in _FOR_STEPS or kinds & _FOR_STEPS[action]]


def _kind(kind: str, attempt: int) -> str:
    """Return what a step waits for as; the body of a branch is tried again as that of a step is."""
    return StepKind.RUN.value if kind == StepKind.BRANCH and attempt else kind


_KINDS_OF_RUNS = {"code": StepKind.SLEEP.value, "retry": StepKind.RUN.value}
_FOR_STEPS = {
    RESOLVE: {StepKind.WAIT.value, StepKind.SIGNAL.value, StepKind.INVOKE.value},
    TIME_OUT: {StepKind.WAIT.value, StepKind.SIGNAL.value, StepKind.INVOKE.value},
    WAKE: {StepKind.SLEEP.value},
    RETRY: {StepKind.RUN.value, StepKind.ATOMIC.value},
}


class RunActions(ReadOnlyAdmin):
    """Adds the actions to the list and the page of runs."""

    actions = ("cancel_selected", "replay_selected", "wake_selected", "retry_selected")

    def get_urls(self) -> list[URLPattern]:
        """Add a page for each action."""
        return [*map(self._path, ALL), *super().get_urls()]

    def _path(self, action: RunAction) -> URLPattern:
        def view(request: HttpRequest, object_id: str) -> HttpResponse:
            return self.action_view(request, unquote(object_id), action)

        return path(
            f"<path:object_id>/{action.name}/", self.admin_site.admin_view(view), name=f"django_durable_{action.page}"
        )

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may cancel runs."""
        return self.may(request, CANCEL)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may replay runs."""
        return self.may(request, REPLAY)

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may settle what runs wait for."""
        return self.may(request, RESOLVE)

    def may(self, request: HttpRequest, action: RunAction) -> bool:
        """Tell whether this person may see runs and do *action*."""
        return self.has_view_permission(request) and request.user.has_perm(f"django_durable.{action.permission}")

    @admin.action(description=gettext_lazy("Cancel selected runs"), permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Run]) -> HttpResponse | None:
        """Ask, then cancel."""
        return self._act_on_selected(request, queryset, CANCEL)

    @admin.action(description=gettext_lazy("Replay selected runs"), permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[Run]) -> HttpResponse | None:
        """Ask, then replay."""
        return self._act_on_selected(request, queryset, REPLAY)

    @admin.action(description=gettext_lazy("Wake selected runs"), permissions=["resolve"])
    def wake_selected(self, request: HttpRequest, queryset: QuerySet[Run]) -> HttpResponse | None:
        """Ask, then end the sleeps."""
        return self._act_on_selected(request, queryset, WAKE)

    @admin.action(description=gettext_lazy("Retry selected runs now"), permissions=["resolve"])
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Run]) -> HttpResponse | None:
        """Ask, then skip the back-offs."""
        return self._act_on_selected(request, queryset, RETRY)

    def _act_on_selected(self, request: HttpRequest, queryset: QuerySet[Run], action: RunAction) -> HttpResponse | None:
        selected = list(queryset[: MOST + 1])
        if len(selected) > MOST:
            self.message_user(request, _("Select at most %(count)d runs.") % {"count": MOST}, messages.ERROR)
            return None
        form = action.form(request.POST if "confirmed" in request.POST else None, runs=selected)
        if not form.is_valid():
            return self._ask(request, selected, action, form, self.links.url("run_changelist"))
        self._act(request, selected, action, form)
        return None

    def action_view(self, request: HttpRequest, object_id: str, action: RunAction) -> HttpResponse:
        """Ask, then do *action* to one run."""
        if not self.may(request, action):
            raise PermissionDenied
        run = self.get_object(request, object_id)
        if run is None:
            return self.missing(request, object_id)
        form = action.form(request.POST if request.method == "POST" else None, runs=[run])
        if not form.is_valid():
            return self._ask(request, [run], action, form, self.links.url("run_change", run.id))
        shown = self._act(request, [run], action, form) or [run.id]
        return HttpResponseRedirect(self.links.url("run_change", shown[0]))

    def _ask(
        self, request: HttpRequest, selected: Sequence[Run], action: RunAction, form: ActionForm, back: str
    ) -> HttpResponse:
        context = {
            "back": back,
            "title": action.question % {"count": len(selected)},
            "action": action,
            "form": form,
            "runs": [(run, self.links.run(run.id), run.get_status_display()) for run in selected],
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return self.render(request, "admin/django_durable/confirm.html", None, context)

    def _act(self, request: HttpRequest, selected: Sequence[Run], action: RunAction, form: ActionForm) -> list[UUID]:
        """Do *action* to each run; return the runs to look at then."""
        done = [shown for run in selected if (shown := self._act_on(request, run, action, form))]
        if done:
            self.message_user(request, action.done % {"count": len(done)}, messages.SUCCESS)
        return done

    def _act_on(self, request: HttpRequest, run: Run, action: RunAction, form: ActionForm) -> UUID | None:
        try:
            shown = action.act(run.id, form)
        except DurableError as error:
            self._warn(request, run, str(error))
            return None
        if shown is None:
            self._warn(request, run, str(action.too_late))
            return None
        note = [action.note % {"run": shown}, form.details(), form.cleaned_data["reason"]]
        self.log_change(request, run, " ".join(" ".join(note).split()))
        return shown

    def _warn(self, request: HttpRequest, run: Run, problem: str) -> None:
        text: Any = _("Run %(run)s: %(problem)s")
        self.message_user(request, text % {"run": short(run.id), "problem": problem}, messages.WARNING)
