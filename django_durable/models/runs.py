"""Runs, and the events that start them in batches."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..core.functions.run_statuses import ENDED, RunStatus
from ..core.ids import uuid7
from ..fields import HashField, NameField, PayloadField
from ..managers import RunQuerySet
from .events import Event
from .functions import Function

#: A run's status, as people read it.
STATUS_LABELS = {
    RunStatus.QUEUED.value: _("Queued"),
    RunStatus.RUNNING.value: _("Running"),
    RunStatus.WAITING.value: _("Waiting"),
    RunStatus.COMPLETED.value: _("Completed"),
    RunStatus.FAILED.value: _("Failed"),
    RunStatus.CANCELLED.value: _("Cancelled"),
    RunStatus.SKIPPED.value: _("Skipped"),
}
# Plain text for the migration: the class of a member may move.
_ENDED = tuple(status.value for status in ENDED)


class Run(models.Model):
    """One execution of a function. The table of its transitions is :mod:`django_durable.engine.store.contract`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    function = models.ForeignKey(Function, models.PROTECT, related_name="runs", db_index=False)
    event = models.ForeignKey(Event, models.PROTECT, null=True, blank=True, related_name="runs", db_index=False)
    input = PayloadField(null=True, blank=True, help_text=_("Data in place of the event's, as JSON text."))
    output = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    error = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    status = models.CharField(max_length=9, choices=STATUS_LABELS, default=RunStatus.QUEUED.value)
    waiting_kind = models.CharField(max_length=10, blank=True)
    waiting_for = models.CharField(max_length=500, blank=True, help_text=_("What the run waits for, for people."))
    summary = models.CharField(max_length=200, blank=True, help_text=_("What the run says of itself, for lists."))
    attempt = models.IntegerField(default=0, help_text=_("Failures of the handler since its last step."))
    steps = models.IntegerField(default=0, help_text=_("Steps recorded so far."))
    priority = models.SmallIntegerField(default=0, help_text=_("Seconds it goes ahead of its queue."))
    queue = NameField(max_length=100)
    code_version = models.CharField(max_length=64, blank=True, help_text=_("Of the code that it started with."))
    last_code_version = models.CharField(
        max_length=64, blank=True, default="", db_default="", help_text=_("Of its last turn, where that was another.")
    )
    parent = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="children", db_index=False)
    parent_key = HashField(null=True, blank=True, help_text=_("Key of the parent's step that invoked it."))
    replay_of = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="replays", db_index=False
    )
    depth = models.SmallIntegerField(default=0, help_text=_("How many runs invoked one another above it."))
    start_key = HashField(null=True, blank=True, unique=True, help_text=_("Hash of what started it: it starts once."))
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    looks_back_to = models.DateTimeField(
        null=True, blank=True, help_text=_("From when on its waits see events, if not from its own start.")
    )

    fence = models.BigIntegerField(default=0, help_text=_("Raised by every claim, takeover, cancel and end."))
    next_at = models.DateTimeField(
        null=True, blank=True, help_text=_("The alarm: hint, lease end, wake-up or time-out.")
    )
    ready_at = models.DateTimeField(null=True, blank=True, help_text=_("Earliest start and order of a queued run."))
    held_by = models.CharField(  # noqa: DJ001
        max_length=255, null=True, blank=True, help_text=_("The limit that holds a queued run.")
    )
    wakes = models.IntegerField(default=0, help_text=_("Wake-ups that came while it ran or waited."))
    crashes = models.SmallIntegerField(default=0, help_text=_("Claims that ended without progress."))
    owner = models.CharField(max_length=255, blank=True, help_text=_("The worker that holds it."))

    objects = RunQuerySet.as_manager()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        ordering = ("-id",)
        permissions = (("cancel_run", "Can cancel runs"), ("replay_run", "Can replay runs"))
        indexes = (
            models.Index(
                fields=("queue", "ready_at", "id"), name="durable_run_ready", condition=Q(status="queued", held_by=None)
            ),
            models.Index(fields=("next_at",), name="durable_run_alarm", condition=Q(next_at__isnull=False)),
            models.Index(fields=("status", "id"), name="durable_run_by_status", condition=~Q(status="completed")),
            models.Index(fields=("function", "id"), name="durable_run_by_function"),
            models.Index(fields=("event",), name="durable_run_by_event", condition=Q(event__isnull=False)),
            models.Index(fields=("parent",), name="durable_run_by_parent", condition=Q(parent__isnull=False)),
            models.Index(fields=("replay_of",), name="durable_run_by_original", condition=Q(replay_of__isnull=False)),
        )
        constraints = (
            models.CheckConstraint(name="durable_run_status", condition=Q(status__in=list(STATUS_LABELS))),
            models.CheckConstraint(
                name="durable_run_ended_has_no_alarm",
                condition=Q(status__in=_ENDED, finished_at__isnull=False, next_at=None)
                | (~Q(status__in=_ENDED) & Q(finished_at=None)),
            ),
            models.CheckConstraint(
                name="durable_run_running_has_lease", condition=~Q(status="running") | Q(next_at__isnull=False)
            ),
            models.CheckConstraint(
                name="durable_run_queued_has_order", condition=~Q(status="queued") | Q(ready_at__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return f"{self.function_id} {self.id}"


class BatchedEvent(models.Model):
    """One of several events that started a run; *position* is its place among them."""

    pk = models.CompositePrimaryKey("run", "position")
    run = models.ForeignKey(Run, models.CASCADE, related_name="batch")
    position = models.PositiveIntegerField()
    event = models.ForeignKey(Event, models.PROTECT, related_name="+")

    class Meta:
        verbose_name = _("batched event")
        verbose_name_plural = _("batched events")

    def __str__(self) -> str:
        return f"{self.run_id} {self.position}"
