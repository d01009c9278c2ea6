"""Functions, as the code last registered them."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..fields import NameField


class Function(models.Model):
    """A durable function as it was last registered; it stays while it has runs, even if the code has lost it."""

    id = NameField(primary_key=True, max_length=201, help_text=_("App label, slash, slug."))
    slug = models.CharField(max_length=100)
    config = models.JSONField(default=dict, help_text=_("Triggers and options as last registered."))
    code_version = models.CharField(max_length=64, blank=True)
    in_code = models.BooleanField(default=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_by = models.CharField(max_length=150, blank=True)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()

    class Meta:
        verbose_name = _("function")
        verbose_name_plural = _("functions")
        ordering = ("id",)

    def __str__(self) -> str:
        return str(self.id)
