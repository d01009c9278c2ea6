"""Open waits of runs, and conditions that failed on an event."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..fields import HashField, NameField
from .events import Event
from .functions import Function
from .runs import Run


class Wait(models.Model):
    """An open wait of a run; it is deleted when it is settled, and the step tells its history."""

    class Kind(models.TextChoices):
        """What settles the wait."""

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

    class Meta:
        verbose_name = _("wait")
        verbose_name_plural = _("waits")
        ordering = ("-id",)
        permissions = (("resolve_wait", "Can settle what runs wait for"),)
        indexes = (models.Index(fields=("name", "match_key", "id"), name="durable_wait_by_match"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class MatchFailure(models.Model):
    """An expression that errored on an event, which therefore did not match."""

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
