"""Named locks."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


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
