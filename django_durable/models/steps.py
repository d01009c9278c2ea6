"""Steps, and the attempts that did not become their memos."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..core.replay.operations import SETTLED, StepKind, StepStatus
from ..fields import HashField, NameField, PayloadField
from ..managers import StepQuerySet
from .events import Event
from .runs import Run

#: A step's kind, as people read it.
KIND_LABELS = {
    StepKind.RUN.value: _("run"),
    StepKind.ATOMIC.value: _("atomic"),
    StepKind.SLEEP.value: _("sleep"),
    StepKind.WAIT.value: _("wait"),
    StepKind.INVOKE.value: _("invoke"),
    StepKind.SEND.value: _("send"),
    StepKind.SIGNAL.value: _("signal"),
    StepKind.GROUP.value: _("group"),
    StepKind.BRANCH.value: _("branch"),
}
#: A step's status, as people read it.
STATUS_LABELS = {
    StepStatus.PLANNED.value: _("Planned"),
    StepStatus.RUNNING.value: _("Running"),
    StepStatus.WAITING.value: _("Waiting"),
    StepStatus.COMPLETED.value: _("Completed"),
    StepStatus.FAILED.value: _("Failed"),
    StepStatus.CANCELLED.value: _("Cancelled"),
}
# Plain text for the migration: the class of a member may move.
_SETTLED = tuple(status.value for status in SETTLED)


class Step(models.Model):
    """A step of a run; once completed or failed it is a memo, and the database refuses a second one."""

    pk = models.CompositePrimaryKey("run", "key")
    # A step is written by statements that have just locked its run's row. A constraint would look that row up once
    # more, and the primary key is an index already: both would cost every step.
    run = models.ForeignKey(Run, models.CASCADE, related_name="step_set", db_index=False, db_constraint=False)
    key = HashField(help_text=_("Hash of branch path, name and ordinal."))
    branch = NameField(max_length=500, blank=True, help_text=_("Path of the branch that it belongs to."))
    parent_key = HashField(null=True, blank=True, help_text=_("Key of its branch or, of a branch, of its group."))
    name = NameField(max_length=255)
    ordinal = models.IntegerField(default=0, help_text=_("Which use of the name in its branch, from 0."))
    kind = models.CharField(max_length=6, choices=KIND_LABELS)
    status = models.CharField(max_length=9, choices=STATUS_LABELS)
    input = PayloadField(blank=True, help_text=_("Summary of the arguments."))
    output = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    error = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    attempt = models.IntegerField(default=0, help_text=_("Attempts that failed."))
    seq = models.IntegerField(null=True, blank=True, help_text=_("Order of completion in the run."))
    # The trigger of a constraint would fire for every step, and hardly any step has an event.
    event = models.ForeignKey(
        Event,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="resolved_steps",
        db_index=False,
        db_constraint=False,
        help_text=_("The event that resolved a wait."),
    )
    planned_at = models.DateTimeField(help_text=_("When it was first reached."))
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    next_at = models.DateTimeField(null=True, blank=True, help_text=_("Wake-up, time-out, end of back-off or lease."))

    path = NameField(max_length=500, blank=True, help_text=_("Of a branch: what its steps have as branch."))
    fence = models.BigIntegerField(default=0, help_text=_("Of a branch: raised by every claim of it."))
    owner = models.CharField(max_length=255, blank=True, help_text=_("Of a branch: the worker that holds it."))
    crashes = models.SmallIntegerField(default=0, help_text=_("Of a branch: claims without progress."))
    open = models.IntegerField(null=True, blank=True, help_text=_("Of a group: branches that still run."))
    winner = models.IntegerField(null=True, blank=True, help_text=_("Of a race: the branch that won."))
    unused = models.BooleanField(
        default=False, db_default=False, help_text=_("The handler ended without asking for it: its code has changed.")
    )

    objects = StepQuerySet.as_manager()

    class Meta:
        verbose_name = _("step")
        verbose_name_plural = _("steps")
        indexes = (
            models.Index(
                fields=("next_at",), name="durable_branch_alarm", condition=Q(kind="branch", next_at__isnull=False)
            ),
            models.Index(
                fields=("run", "parent_key", "status", "ordinal"),
                name="durable_step_by_parent",
                condition=Q(parent_key__isnull=False),
            ),
            models.Index(fields=("event",), name="durable_step_by_event", condition=Q(event__isnull=False)),
        )
        constraints = (
            models.CheckConstraint(
                name="durable_step_settled_has_seq",
                condition=~Q(status__in=_SETTLED) | Q(seq__isnull=False, finished_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name}#{self.ordinal}" if self.ordinal else self.name


class StepAttempt(models.Model):
    """An attempt that did not become the memo: it failed, or its value came after its worker had lost the run."""

    class Status(models.TextChoices):
        """Why the attempt is not the memo."""

        FAILED = "failed", _("Failed")
        DISCARDED = "discarded", _("Discarded")

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(Run, models.CASCADE, related_name="attempts")
    key = HashField(null=True, blank=True, help_text=_("Key of the step; none for the handler's own code."))
    name = models.CharField(max_length=255, blank=True)
    number = models.PositiveIntegerField(help_text=_("Which attempt, from 1."))
    status = models.CharField(max_length=9, choices=Status.choices)
    output = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    error = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    owner = models.CharField(max_length=255, blank=True)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.name} {self.number}"
