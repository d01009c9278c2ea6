"""What the bodies of ``step.atomic`` write."""

from __future__ import annotations

from django.db import models


class Effect(models.Model):
    """What one call of a body did, in the transaction of its step."""

    run = models.UUIDField(db_index=True)
    place = models.CharField(max_length=200)
    token = models.CharField(max_length=16)

    class Meta:
        app_label = "project"

    def __str__(self) -> str:
        return f"{self.run} {self.place}#{self.token}"
