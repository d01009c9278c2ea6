"""Events, the ids that make one event of two sendings, and the keys by which waits find events."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from ..core.ids import uuid7
from ..fields import HashField, NameField, PayloadJSONField
from ..managers import EventQuerySet


class Event(models.Model):
    """Something that happened; stored in its sender's transaction, and ingested once."""

    class Source(models.TextChoices):
        """The kind of an event's sender."""

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
    """An idempotency key of an event's name: a name and a key identify one event."""

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
    """The paths that waits compare in events of a name or wildcard; every such event gets a key for them."""

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
    """The key of one ingested event for one match path; a wait that looks back reads these keys."""

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
