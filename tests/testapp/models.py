"""A blog: rows whose changes start functions."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Lower


class Author(models.Model):
    """Somebody who writes."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Post(models.Model):
    """What somebody wrote."""

    author = models.ForeignKey(Author, models.CASCADE)
    title = models.CharField(max_length=100)
    body = models.TextField(blank=True)
    published = models.DateTimeField(null=True)
    views = models.IntegerField(default=0)
    slug = models.GeneratedField(
        expression=Lower("title"), output_field=models.CharField(max_length=100), db_persist=True
    )
    tags: models.ManyToManyField[Tag, models.Model] = models.ManyToManyField("Tag")

    def __str__(self) -> str:
        return self.title


class Draft(Post):
    """A post under another class: a proxy."""

    class Meta:
        proxy = True


class Review(Post):
    """A post with a table of its own beside the post's."""

    stars = models.IntegerField(default=5)


class Tag(models.Model):
    """A word to find posts by."""

    word = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.word
