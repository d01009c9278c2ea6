"""What is stored: fields, constraints and indexes. Rows are written by :mod:`django_durable.engine` only."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .core.ids import uuid7
from .core.replay.operations import StepKind as Kind
from .core.replay.operations import StepStatus as Status
from .fields import PayloadField, PayloadJSONField
from .managers import EventQuerySet, FunctionQuerySet, RunQuerySet, StepQuerySet, WaitQuerySet


class HashField(models.BinaryField):  # type: ignore[type-arg]
    """Sixteen bytes, compared as bytes, so that no collation merges ``A`` and ``a``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = 16
        super().__init__(*args, **kwargs)

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return a type that MySQL can index: its usual one for bytes cannot be."""
        return "binary(16)" if connection.vendor == "mysql" else super().db_type(connection)

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> bytes | None:
        """Return plain bytes on every database."""
        return None if value is None else bytes(value)


class NameField(models.CharField):  # type: ignore[type-arg]
    """Text that is compared as it is written: MySQL's usual collations take ``A`` and ``a`` for one name."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return the column's type, with a collation by code points on MySQL."""
        parameters = super().db_parameters(connection)
        return {**parameters, "collation": "utf8mb4_bin"} if connection.vendor == "mysql" else parameters


class RunStatus(models.TextChoices):
    """Where a run stands."""

    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    WAITING = "waiting", _("Waiting")
    COMPLETED = "completed", _("Completed")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")
    SKIPPED = "skipped", _("Skipped")


LIVE = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)
ENDED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.SKIPPED)


class StepKind(models.TextChoices):
    """What a step does."""

    RUN = Kind.RUN.value, _("run")
    ATOMIC = Kind.ATOMIC.value, _("atomic")
    SLEEP = Kind.SLEEP.value, _("sleep")
    WAIT = Kind.WAIT.value, _("wait")
    INVOKE = Kind.INVOKE.value, _("invoke")
    SEND = Kind.SEND.value, _("send")
    SIGNAL = Kind.SIGNAL.value, _("signal")
    GROUP = Kind.GROUP.value, _("group")
    BRANCH = Kind.BRANCH.value, _("branch")


class StepStatus(models.TextChoices):
    """Where a step stands."""

    PLANNED = Status.PLANNED.value, _("Planned")
    RUNNING = Status.RUNNING.value, _("Running")
    WAITING = Status.WAITING.value, _("Waiting")
    COMPLETED = Status.COMPLETED.value, _("Completed")
    FAILED = Status.FAILED.value, _("Failed")
    CANCELLED = Status.CANCELLED.value, _("Cancelled")


class Function(models.Model):
    """A durable function as it was last registered; it stays while it has runs, also when the code lost it."""

    id = NameField(primary_key=True, max_length=201, help_text=_("App label, slash, slug."))
    app_label = models.CharField(max_length=100)
    slug = models.CharField(max_length=100)
    config = models.JSONField(default=dict, help_text=_("Triggers and options as last registered."))
    code_version = models.CharField(max_length=64, blank=True)
    in_code = models.BooleanField(default=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_by = models.CharField(max_length=150, blank=True)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()

    objects = FunctionQuerySet.as_manager()

    class Meta:
        verbose_name = _("function")
        verbose_name_plural = _("functions")
        ordering = ("id",)

    def __str__(self) -> str:
        return str(self.id)


class Event(models.Model):
    """Something that happened. Stored in its sender's transaction; ingested once."""

    class Source(models.TextChoices):
        """Who sent it."""

        API = "api", _("API")
        MODEL = "model", _("Model")
        SIGNAL = "signal", _("Signal")
        STEP = "step", _("Step")
        ADMIN = "admin", _("Admin")
        CRON = "cron", _("Schedule")
        INTERNAL = "internal", _("Engine")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = NameField(max_length=255)
    data = PayloadJSONField(default=dict)
    user = PayloadJSONField(null=True, blank=True)
    ts = models.DateTimeField(help_text=_("When it happened, as its sender says."))
    v = models.CharField(max_length=100, blank=True, help_text=_("Version of its schema."))
    source = models.CharField(max_length=8, choices=Source.choices, default=Source.API)
    received_at = models.DateTimeField(help_text=_("When the row was inserted, by the database's clock."))
    ingest_at = models.DateTimeField(help_text=_("When it is due: on receipt, or later if ts lies in the future."))
    ingested_at = models.DateTimeField(null=True, blank=True)

    objects = EventQuerySet.as_manager()

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        ordering = ("-id",)
        indexes = (
            models.Index(fields=("ingest_at", "id"), name="durable_event_to_ingest", condition=Q(ingested_at=None)),
            models.Index(fields=("name", "ingested_at", "id"), name="durable_event_by_name"),
        )

    def __str__(self) -> str:
        return f"{self.name} {self.id}"


class EventId(models.Model):
    """An idempotency key of an event's name: the same name and key are one event."""

    digest = HashField(primary_key=True, help_text=_("Hash of name and key."))
    name = models.CharField(max_length=255)
    key = models.TextField()
    payload = HashField(help_text=_("Hash of data and user, to notice another payload under the same key."))
    event = models.ForeignKey(Event, models.CASCADE, related_name="keys")

    class Meta:
        verbose_name = _("event id")
        verbose_name_plural = _("event ids")

    def __str__(self) -> str:
        return f"{self.name} {self.key}"


class MatchPath(models.Model):
    """Paths that waits compare in events of a name or wildcard; every such event gets a key for them."""

    name = NameField(max_length=255, help_text=_("Event name or wildcard."))
    path = NameField(max_length=255, help_text=_("One path, or several joined by ' & '."))
    backfilled_at = models.DateTimeField(null=True, help_text=_("Since when stored events have their keys, too."))

    class Meta:
        verbose_name = _("match path")
        verbose_name_plural = _("match paths")
        constraints = (models.UniqueConstraint(fields=("name", "path"), name="durable_match_path_unique"),)

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


class EventKey(models.Model):
    """The key of one ingested event for one match path: what a wait that looks back reads."""

    pk = models.CompositePrimaryKey("path", "key", "ingested_at", "event")
    path = models.ForeignKey(MatchPath, models.CASCADE, related_name="+", db_index=False)  # It begins the primary key.
    key = HashField()
    ingested_at = models.DateTimeField()
    event = models.ForeignKey(Event, models.CASCADE, related_name="+")

    class Meta:
        verbose_name = _("event key")
        verbose_name_plural = _("event keys")

    def __str__(self) -> str:
        return f"{self.event_id} {self.key.hex()}"


class Run(models.Model):
    """One execution of a function. The table of its transitions is :mod:`django_durable.engine.store.portable.runs`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    function = models.ForeignKey(Function, models.PROTECT, related_name="runs", db_index=False)
    event = models.ForeignKey(Event, models.PROTECT, null=True, blank=True, related_name="runs", db_index=False)
    input = PayloadField(null=True, blank=True, help_text=_("Data in place of the event's, as JSON text."))
    output = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    error = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    status = models.CharField(max_length=9, choices=RunStatus.choices, default=RunStatus.QUEUED)
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
            models.CheckConstraint(name="durable_run_status", condition=Q(status__in=RunStatus.values)),
            models.CheckConstraint(
                name="durable_run_ended_has_no_alarm",
                condition=Q(status__in=ENDED, finished_at__isnull=False, next_at=None)
                | (~Q(status__in=ENDED) & Q(finished_at=None)),
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
    """One of several events that started a run, in order."""

    pk = models.CompositePrimaryKey("run", "position")
    run = models.ForeignKey(Run, models.CASCADE, related_name="batch")
    position = models.PositiveIntegerField()
    event = models.ForeignKey(Event, models.PROTECT, related_name="+")

    class Meta:
        verbose_name = _("batched event")
        verbose_name_plural = _("batched events")

    def __str__(self) -> str:
        return f"{self.run_id} {self.position}"


class Step(models.Model):
    """A step of a run; once completed or failed it is a memo, and the database refuses a second one."""

    pk = models.CompositePrimaryKey("run", "key")
    # A step is written by statements that have just locked its run's row. A constraint would look it up once more, and
    # the primary key is an index already: both would cost every step.
    run = models.ForeignKey(Run, models.CASCADE, related_name="step_set", db_index=False, db_constraint=False)
    key = HashField(help_text=_("Hash of branch path, name and ordinal."))
    branch = NameField(max_length=500, blank=True, help_text=_("Path of the branch that it belongs to."))
    parent_key = HashField(null=True, blank=True, help_text=_("Key of its branch or, of a branch, of its group."))
    name = NameField(max_length=255)
    ordinal = models.IntegerField(default=0, help_text=_("Which use of the name in its branch, from 0."))
    kind = models.CharField(max_length=6, choices=StepKind.choices)
    status = models.CharField(max_length=9, choices=StepStatus.choices)
    input = PayloadField(blank=True, help_text=_("Summary of the arguments."))
    output = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    error = PayloadField(null=True, blank=True, help_text=_("JSON text."))
    attempt = models.IntegerField(default=0, help_text=_("Attempts that failed."))
    seq = models.IntegerField(null=True, blank=True, help_text=_("Order of completion in the run."))
    # The trigger of a constraint would fire for every step, and nearly none has an event.
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
                condition=~Q(status__in=("completed", "failed")) | Q(seq__isnull=False, finished_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name}#{self.ordinal}" if self.ordinal else self.name


class StepAttempt(models.Model):
    """An attempt that did not become the memo: it failed, or its value came after the run was lost."""

    class Status(models.TextChoices):
        """Why it is no memo."""

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


class Wait(models.Model):
    """An open wait of a run. Deleted when resolved: its history is the step."""

    class Kind(models.TextChoices):
        """What resolves it."""

        EVENT = "event", _("Event")
        INVOKE = "invoke", _("Invoked run")
        SIGNAL = "signal", _("Signal")
        CANCEL = "cancel", _("Cancelling event")

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(Run, models.CASCADE, related_name="waits")
    key = HashField(null=True, blank=True, help_text=_("Key of the waiting step; none for the run itself."))
    kind = models.CharField(max_length=6, choices=Kind.choices)
    name = NameField(max_length=255, help_text=_("Event name or wildcard, function, or signal."))
    match_key = HashField(help_text=_("Hash of the values that an event must have."))
    match = models.CharField(max_length=255, blank=True, help_text=_("Path that must be equal in both events."))
    expression = models.TextField(blank=True, help_text=_("Condition (CEL), checked on every candidate."))
    since = models.DateTimeField(null=True, blank=True, help_text=_("Events received earlier do not count."))
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    objects = WaitQuerySet.as_manager()

    class Meta:
        verbose_name = _("wait")
        verbose_name_plural = _("waits")
        ordering = ("-id",)
        permissions = (("resolve_wait", "Can settle what runs wait for"),)
        indexes = (models.Index(fields=("name", "match_key", "id"), name="durable_wait_by_match"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class MatchFailure(models.Model):
    """An expression that errored on an event, so that it did not match."""

    id = models.BigAutoField(primary_key=True)
    event = models.ForeignKey(Event, models.CASCADE, related_name="match_failures")
    run = models.ForeignKey(Run, models.CASCADE, null=True, blank=True, related_name="+", help_text=_("Whose wait."))
    function = models.ForeignKey(Function, models.CASCADE, null=True, blank=True, related_name="+")
    expression = models.TextField()
    reason = models.CharField(max_length=500)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("match failure")
        verbose_name_plural = _("match failures")
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.reason


class Lock(models.Model):
    """A named lock: who leads, and, where the database has no advisory locks, which names are being touched."""

    name = models.CharField(primary_key=True, max_length=255)
    owner = models.CharField(max_length=255, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("lock")
        verbose_name_plural = _("locks")

    def __str__(self) -> str:
        return self.name
