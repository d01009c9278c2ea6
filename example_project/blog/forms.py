"""The form for a new post."""

from __future__ import annotations

from django import forms
from django.contrib.auth.models import User

from .models import Post


class PostForm(forms.ModelForm):
    """Writes a post as any user: the example asks nobody to log in."""

    author = forms.ModelChoiceField(User.objects.filter(is_staff=False).order_by("-id"), empty_label=None)

    class Meta:
        model = Post
        fields = ("author", "title", "body")
        widgets = {"body": forms.Textarea(attrs={"rows": 4})}
